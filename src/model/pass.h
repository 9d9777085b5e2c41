// What the steps of one forward pass share.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/batch.h"
#include "model/decoder.h"
#include "model/decoder_spec.h"
#include "model/workspace.h"
#include "ops/ops.h"

namespace runahead {

inline constexpr int kQueryPart = 0;  // index of a part of LayerWeights::qkv
inline constexpr int kKeyValuePart = 1;

/// One call of Forward: what its steps share.
struct Pass {
  const DecoderSpec& spec;
  std::span<const Chunk> batch;
  int64_t rows = 0;           // rows of all chunks
  std::vector<int64_t> kept;  // rows whose logits are wanted
  Workspace& workspace;
  Ops& ops;
  Stream& stream;

  Pass(const DecoderSpec& model, std::span<const Chunk> chunks, Workspace& memory, Ops& operations, Stream& on)
      : spec(model), batch(chunks), workspace(memory), ops(operations), stream(on) {
    for (const Chunk& chunk : batch) {
      rows += chunk.rows();
      if (chunk.logits()) kept.push_back(rows - 1);
    }
  }
};

/// Norms over all features of a row, in place, where the model has them. x: [n, features].
inline void NormalizeRows(const Pass& pass, const std::optional<Norm>& norm, TensorView x) {
  if (norm && pass.spec.qk_norm == QkNorm::kRow) pass.ops.Normalize(x, *norm, x, pass.stream);
}

}  // namespace runahead
