// What the attention of one kind of processor provides: packing of keys and values, and the work on one tile of rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "ops/cpu/scratch.h"
#include "ops/cpu/team.h"
#include "ops/ops.h"

namespace runahead::cpu {

constexpr float kLog2E = 1.44269504088896341f;
/// A running maximum below every score, and finite: differences stay numbers.
constexpr float kNothingYet = -1e30f;

/// One call of Attend. The rows of a kv head are its queries: row r is position `position + r / group` and query head
/// `kv_head * group + r % group`.
struct AttentionCall {
  TensorView q;  // [positions, q_heads, head_dim]
  int64_t position = 0;
  TensorView k;    // [keys or more, kv_heads, head_dim]
  TensorView v;    // [keys or more, kv_heads, head_dim]
  TensorView out;  // [positions, q_heads, head_dim]
  AttentionOptions options;

  [[nodiscard]] int64_t head_dim() const { return k.shape()[2]; }
  [[nodiscard]] int64_t group() const { return q.shape()[1] / k.shape()[1]; }
  [[nodiscard]] int64_t rows() const { return q.rows() * group(); }
  /// Keys that are read at all: those behind them may not have been written.
  [[nodiscard]] int64_t keys() const { return options.causal == CausalWork::kDense ? k.rows() : position + q.rows(); }
  [[nodiscard]] int64_t PositionOf(int64_t row) const { return position + row / group(); }
  /// Offset, in elements, of row `row` of `kv_head` in `view`, which is q or out.
  [[nodiscard]] int64_t Offset(const TensorView& view, int64_t kv_head, int64_t row) const {
    return row / group() * view.row_stride() + (kv_head * group() + row % group()) * head_dim();
  }
  /// The first position that the query at position `own` sees.
  [[nodiscard]] int64_t FirstSeen(int64_t own) const {
    return options.window > 0 ? std::max<int64_t>(0, own - options.window + 1) : 0;
  }
  /// The first key that any query sees: those before it may not have been written.
  [[nodiscard]] int64_t first_key() const { return options.causal == CausalWork::kDense ? 0 : FirstSeen(position); }
  /// What is added to the scores of row `row` with key `key` and those after it, or null.
  [[nodiscard]] const float* KeyBias(int64_t kv_head, int64_t row, int64_t key) const {
    if (options.key_bias.data() == nullptr) return nullptr;
    const int64_t head = kv_head * group() + row % group();
    return options.key_bias.As<float>() + head * options.key_bias.row_stride() + key;
  }
  /// Key blocks [begin, end) that rows [row_begin, row_end) work on.
  struct Blocks {
    int64_t begin;
    int64_t end;
  };
  [[nodiscard]] Blocks BlocksOf(int64_t row_begin, int64_t row_end, int64_t key_block) const {
    const int64_t all = (keys() + key_block - 1) / key_block;
    if (options.causal == CausalWork::kDense) return {0, all};
    return {FirstSeen(PositionOf(row_begin)) / key_block, PositionOf(row_end - 1) / key_block + 1};
  }
};

/// A table of functions. A panel holds one block of keys and values of one kv head, packed; a workspace serves one
/// worker. Both are aligned to 64 bytes.
struct AttentionKernel {
  int64_t key_block;  // keys of a panel
  int64_t tile_rows;  // most rows of a tile
  size_t (*panel_bytes)(int64_t head_dim);
  size_t (*workspace_bytes)(int64_t head_dim);
  void (*pack)(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel);
  /// Writes rows [row_begin, row_end) of `out`. Panels follow each other from `first_block` on.
  void (*tile)(const AttentionCall& call, int64_t kv_head, int64_t row_begin, int64_t row_end,
               const std::byte* panels, int64_t first_block, std::byte* workspace);
};

/// Products in f32, for every dtype and processor.
AttentionKernel SimdAttention();
/// Products of bf16, for bf16 tensors; nothing when the processor has none.
std::optional<AttentionKernel> Bf16Attention();

/// Attention of at most kFewQueries rows of each kv head, straight from the cache: bound by its memory.
constexpr int64_t kFewQueries = 8;
void AttendFew(const Team& team, Scratch& scratch, const AttentionCall& call);

}  // namespace runahead::cpu
