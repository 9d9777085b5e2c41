// What the attention of one kind of processor provides, and the arithmetic that all share.
//
// The bits of a row depend on its query, its position and the keys and values that it sees, on nothing else. So the
// keys lie in blocks at fixed positions: block b holds keys [b * kKeyBlock, (b + 1) * kKeyBlock). A row goes through
// the blocks of a segment in order, with a running maximum; each segment begins anew, and the segments of a row are
// joined in order. Within a block every sum has one order, by feature for scores and by key for the rest, and what a
// row does not see has a weight of exactly 0. How rows are grouped, cut into tiles and given to threads is free.
#pragma once

#include <hwy/base.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "ops/ops.h"

namespace runahead::cpu {

constexpr float kLog2E = 1.44269504088896341f;
/// A running maximum below every score, and finite: differences stay numbers.
constexpr float kNothingYet = -1e30f;

constexpr int64_t kKeyBlock = kPageRows;  // keys of a panel
constexpr int64_t kSegmentBlocks = 4;     // blocks of a segment, the least that a thread does of a row
constexpr int64_t kGroupRows = 32;        // most rows of a group

/// Features of a head.
struct HeadSize {
  int64_t key = 0;      // features of a key
  int64_t value = 0;    // features of a value
  bool latent = false;  // scores are products with the value and the key; otherwise with the key alone

  /// Features that a score sums, the latent ones first, each of the two padded to whole steps.
  [[nodiscard]] int64_t summed(int64_t step) const {
    const auto whole = [&](int64_t features) { return (features + step - 1) / step * step; };
    return whole(key) + (latent ? whole(value) : 0);
  }
};

/// One call of Attend. The rows of a kv head are its queries: row r is position `position + r / group` and query head
/// `kv_head * group + r % group`.
struct AttentionCall {
  TensorView q;  // [positions, q_heads, features]
  int64_t position = 0;
  const KvRows& cache;
  TensorView out;  // [positions, q_heads, features of a value]
  AttentionOptions options;

  [[nodiscard]] HeadSize size() const {
    return {cache.k.shape()[2], cache.v.shape()[2], options.rotated.data() != nullptr};
  }
  [[nodiscard]] int64_t kv_heads() const { return cache.k.shape()[1]; }
  [[nodiscard]] int64_t group() const { return q.shape()[1] / cache.k.shape()[1]; }
  [[nodiscard]] int64_t rows() const { return q.rows() * group(); }
  /// Keys that are read at all: those behind them may not have been written.
  [[nodiscard]] int64_t keys() const {
    return options.causal == CausalWork::kDense ? cache.rows : position + q.rows();
  }
  /// The first key of `block`, of `kv_head`, in `view`, which is k or v of the cache; the block's others follow.
  template <typename T>
  [[nodiscard]] const T* BlockOf(const TensorView& view, int64_t kv_head, int64_t block) const {
    return view.As<T>() + cache.RowOf(block * kKeyBlock) * view.row_stride() + kv_head * view.shape()[2];
  }
  [[nodiscard]] int64_t PositionOf(int64_t row) const { return position + row / group(); }
  /// Offset, in elements, of row `row` of `kv_head` in `view`, which is q, its rotated part, or out.
  [[nodiscard]] int64_t Offset(const TensorView& view, int64_t kv_head, int64_t row) const {
    return row / group() * view.row_stride() + (kv_head * group() + row % group()) * view.shape()[2];
  }
  /// The first position that the query at position `own` sees.
  [[nodiscard]] int64_t FirstSeen(int64_t own) const {
    return options.window > 0 ? std::max<int64_t>(0, own - options.window + 1) : 0;
  }
  /// The first key that any query sees: those before it may not have been written.
  [[nodiscard]] int64_t first_key() const { return options.causal == CausalWork::kDense ? 0 : FirstSeen(position); }
  /// Key blocks [begin, end) that rows [row_begin, row_end) work on.
  struct Blocks {
    int64_t begin;
    int64_t end;
  };
  [[nodiscard]] Blocks BlocksOf(int64_t row_begin, int64_t row_end) const {
    if (options.causal == CausalWork::kDense) return {0, (keys() + kKeyBlock - 1) / kKeyBlock};
    return {FirstSeen(PositionOf(row_begin)) / kKeyBlock, PositionOf(row_end - 1) / kKeyBlock + 1};
  }
};

/// Rows [begin, end) of a kv head, at most kGroupRows. In the arrays of a group rows are lanes; those behind the last
/// row belong to nobody.
struct RowGroup {
  int64_t kv_head;
  int64_t begin;
  int64_t end;
  int64_t lanes;  // 8, 16 or 32

  [[nodiscard]] int64_t rows() const { return end - begin; }
};

/// Features of an output in the arrays of a group: whole vectors of any processor.
constexpr int64_t ValueWidth(int64_t features) { return (features + 15) / 16 * 16; }

/// What a group's rows have seen of some keys: an online softmax. Borrows its memory.
struct Attended {
  float* maxima;  // [lanes], of the scores, in units of log2 e
  float* sums;    // [lanes], of the weights
  float* output;  // [ValueWidth, lanes], weighted values

  Attended(float* memory, int64_t lanes) : maxima(memory), sums(memory + lanes), output(memory + 2 * lanes) {}
  static int64_t Floats(int64_t features) { return kGroupRows * (2 + ValueWidth(features)); }
  void Clear(int64_t lanes, int64_t features) const {
    std::fill_n(maxima, lanes, kNothingYet);
    std::fill_n(sums, lanes * (1 + ValueWidth(features)), 0.0f);
  }
};

/// A panel opens with this, and 64 bytes further on holds one block of keys and values of one kv head. Keys and
/// values that no query sees are zeros there, and so are values that are not finite numbers: a weight of 0 would not
/// hide them.
struct alignas(64) PanelHeader {
  bool all_finite;  // no such values among those that are seen
};

/// A block of keys for a group: those that any of its rows sees, [begin, end) of the block in whole kKeyStep.
constexpr int64_t kKeyStep = 32;
struct SeenKeys {
  int64_t begin;
  int64_t end;
  bool by_all;  // every row sees all of them
  /// Of each lane, the first and the last key of the block that it sees.
  int32_t first[kGroupRows];
  int32_t last[kGroupRows];

  SeenKeys(const AttentionCall& call, const RowGroup& rows, int64_t block);
};

/// Rows of keys or values of one kv head that are read soon. A few queries wait for the cache's memory: it fetches
/// these rows while others are worked on, some at each step.
class RowsAhead {
 public:
  /// Rows of `view`, which is k or v of the cache, from block `block` on as far as they follow each other; none where
  /// many queries share a block.
  RowsAhead(const AttentionCall& call, const TensorView& view, int64_t kv_head, int64_t block) {
    constexpr int64_t kFewQueries = 16;
    count_ = call.keys() - block * kKeyBlock;
    if (!call.cache.pages.straight()) count_ = std::min(count_, kKeyBlock);
    if (call.rows() > kFewQueries || count_ <= 0) return;
    const auto element = static_cast<int64_t>(SizeOf(view.dtype()));
    stride_ = view.row_stride() * element;
    bytes_ = view.shape()[2] * element;
    rows_ =
        static_cast<const std::byte*>(view.data()) + call.cache.RowOf(block * kKeyBlock) * stride_ + kv_head * bytes_;
  }
  /// Fetches rows [begin, end) where they exist. Inline by force: GCC takes calls of a function that only fetches for
  /// calls without an effect.
  HWY_INLINE void Fetch(int64_t begin, int64_t end) const {
    constexpr int64_t kLine = 64;  // bytes
    if (rows_ == nullptr) return;
    for (int64_t row = begin; row < std::min(end, count_); ++row) {
      for (int64_t i = 0; i < bytes_; i += kLine) __builtin_prefetch(rows_ + row * stride_ + i, 0, 2);
    }
  }

 private:
  const std::byte* rows_ = nullptr;
  int64_t stride_ = 0;  // bytes from one row to the next
  int64_t bytes_ = 0;   // bytes of a row
  int64_t count_ = 0;   // rows that there are
};

/// A table of functions. All memory is aligned to 64 bytes.
struct AttentionKernel {
  /// What a thread calls before and after the blocks that it attends to; null where there is nothing to do.
  void (*enter)();
  void (*leave)();
  int64_t fewest_lanes;  // fewest lanes of a group
  size_t (*panel_bytes)(const HeadSize& size);
  size_t (*query_bytes)(const HeadSize& size);  // bytes of a group's queries
  size_t (*workspace_bytes)();                  // bytes of a worker's memory
  void (*pack)(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel);
  void (*pack_queries)(const AttentionCall& call, const RowGroup& rows, std::byte* queries);
  /// Adds one block of keys to what the rows have seen.
  void (*attend)(const AttentionCall& call, const RowGroup& rows, const std::byte* queries, int64_t block,
                 const std::byte* panel, const Attended& seen, std::byte* workspace);
};

/// Products in f32, for every dtype and processor.
AttentionKernel SimdAttention();
/// Products of bf16, for bf16 tensors; nothing when the processor has none.
std::optional<AttentionKernel> Bf16Attention();

/// Adds `part`, of the keys that follow, to `whole`.
void JoinAttended(const RowGroup& rows, int64_t features, const Attended& part, const Attended& whole);
/// Writes the rows of `out`: weighted values over weights. Overwrites `whole`.
void FinishAttended(const AttentionCall& call, const RowGroup& rows, const Attended& whole);

}  // namespace runahead::cpu
