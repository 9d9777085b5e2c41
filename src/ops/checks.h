// The shapes each operation demands: one set of checks for the fast operations and for the oracle.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace runahead {

/// One check for each operation of Ops: aborts on shapes or dtypes that its contract does not allow.
void CheckParts(const std::vector<LinearPart>& parts);
void CheckEmbed(std::span<const int32_t> tokens, TensorView table, TensorView out);
void CheckNormalize(TensorView x, const Norm& norm, TensorView out);
void CheckMatmul(TensorView x, const Linear& linear, DType compute, int first, int count, TensorView y);
void CheckAdd(TensorView x, TensorView delta);
void CheckHeads(TensorView q, const HeadSteps& steps, int64_t position);
void CheckAppendKv(TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows);
void CheckAttention(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options,
                    TensorView out);
void CheckGatedActivation(TensorView gate_up, TensorView out);
void CheckActivate(TensorView x, TensorView out);
void CheckMixture(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
                  TensorView sum);
void CheckSoftcap(TensorView x, float cap);

/// Positions [first, own] that the query at position `own` sees.
inline int64_t FirstVisible(int64_t own, int64_t window) {
  return window > 0 && own >= window ? own - window + 1 : 0;
}

}  // namespace runahead
