// How the kernels with products of bf16 pairs lay out their operands.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cpu/attention_kernel.h"
#include "tensor/dtype.h"

namespace runahead::cpu {

constexpr int64_t kDepth = 32;  // elements of the summed dimension that a tile takes at once: 64 bytes

/// Steps of kDepth features that scores sum.
inline int64_t KeyRows(const HeadSize& size) { return size.summed(kDepth) / kDepth; }

/// Elements behind a panel's header: keys [KeyRows, kKeyBlock, kDepth features], then values, for vectors [kKeyBlock
/// / 2, ValueWidth, 2 keys], for tiles [kKeyBlock / kDepth, ValueWidth, kDepth keys].
inline int64_t PanelElements(const HeadSize& size) {
  return kKeyBlock * (KeyRows(size) * kDepth + ValueWidth(size.value));
}

void PackForVectors(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel);
void PackForTiles(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel);
/// Queries: [KeyRows * kDepth / 2, lanes] pairs of features.
void PackQueriesBf16(const AttentionCall& call, const RowGroup& rows, std::byte* queries);

}  // namespace runahead::cpu
