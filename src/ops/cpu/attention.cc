#include "ops/cpu/attention.h"

#include <algorithm>
#include <cstddef>

#include "ops/cpu/attention_kernel.h"

namespace runahead::cpu {
namespace {

constexpr size_t kPanelBudget = size_t{64} << 20;  // bytes of packed keys and values that are held at once

size_t RoundUp(size_t bytes) { return (bytes + 63) / 64 * 64; }

AttentionKernel KernelFor(DType dtype) {
  if (dtype == DType::kBF16) {
    if (const auto kernel = Bf16Attention()) return *kernel;
  }
  return SimdAttention();
}

}  // namespace

void Attend(const Team& team, Scratch& scratch, TensorView q, int64_t position, const KvSpan& keys,
            const AttentionOptions& options, TensorView out) {
  if (q.rows() == 0) return;
  const AttentionCall call{q, position, keys.k, keys.v, out, options};
  if (call.rows() <= kFewQueries && options.causal == CausalWork::kSkip) return AttendFew(team, scratch, call);
  const AttentionKernel kernel = KernelFor(q.dtype());
  const int64_t kv_heads = keys.k.shape()[1];
  const AttentionCall::Blocks range = call.BlocksOf(0, call.rows(), kernel.key_block);
  const int64_t first_block = range.begin;
  const int64_t blocks = range.end - range.begin;
  const size_t panel_bytes = RoundUp(kernel.panel_bytes(call.head_dim()));
  const size_t head_bytes = panel_bytes * static_cast<size_t>(blocks);
  const size_t workspace_bytes = RoundUp(kernel.workspace_bytes(call.head_dim()));

  // Many heads at once keep all threads busy to the end; the budget bounds what long prompts need.
  const auto affordable = static_cast<int64_t>(std::max<size_t>(1, kPanelBudget / head_bytes));
  const int64_t heads_at_once = std::min(kv_heads, affordable);
  auto* panels = scratch.Get<std::byte>(head_bytes * static_cast<size_t>(heads_at_once) +
                                        workspace_bytes * static_cast<size_t>(team.threads()));
  std::byte* workspaces = panels + head_bytes * static_cast<size_t>(heads_at_once);

  for (int64_t head = 0; head < kv_heads; head += heads_at_once) {
    const int64_t heads = std::min(heads_at_once, kv_heads - head);
    team.Run(heads * blocks, [&](int64_t task, int) {
      kernel.pack(call, head + task / blocks, first_block + task % blocks,
                  panels + static_cast<size_t>(task) * panel_bytes);
    });
    // Later rows see more keys: they come first, and the short ones fill the gaps at the end.
    const int64_t tiles = (call.rows() + kernel.tile_rows - 1) / kernel.tile_rows;
    team.Run(heads * tiles, [&](int64_t task, int worker) {
      const int64_t row = (tiles - 1 - task / heads) * kernel.tile_rows;
      const int64_t h = task % heads;
      kernel.tile(call, head + h, row, std::min(row + kernel.tile_rows, call.rows()),
                  panels + static_cast<size_t>(h) * head_bytes, first_block,
                  workspaces + static_cast<size_t>(worker) * workspace_bytes);
    });
  }
}

}  // namespace runahead::cpu
