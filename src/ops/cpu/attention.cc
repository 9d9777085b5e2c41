#include "ops/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "ops/cpu/attention_kernel.h"

namespace runahead::cpu {

SeenKeys::SeenKeys(const AttentionCall& call, const RowGroup& rows, int64_t block) {
  const int64_t base = block * kKeyBlock;
  const int64_t lowest = call.PositionOf(rows.begin);
  const int64_t highest = call.PositionOf(rows.end - 1);
  const auto whole_steps = [](int64_t keys) { return (keys + kKeyStep - 1) / kKeyStep * kKeyStep; };
  begin = 0;
  end = whole_steps(std::clamp<int64_t>(call.keys() - base, 0, kKeyBlock));
  if (call.options.causal == CausalWork::kSkip) {
    begin = std::clamp<int64_t>(call.FirstSeen(lowest) - base, 0, kKeyBlock) / kKeyStep * kKeyStep;
    end = whole_steps(std::clamp<int64_t>(highest + 1 - base, 0, kKeyBlock));
  }
  by_all = base + begin >= call.FirstSeen(highest) && base + end - 1 <= lowest;
  if (by_all) return;
  for (int64_t lane = 0; lane < rows.lanes; ++lane) {
    const int64_t own = call.PositionOf(std::min(rows.begin + lane, rows.end - 1));
    first[lane] = static_cast<int32_t>(std::clamp<int64_t>(call.FirstSeen(own) - base, 0, kKeyBlock));
    last[lane] = static_cast<int32_t>(std::clamp<int64_t>(own - base, -1, kKeyBlock - 1));
  }
}

namespace {

constexpr int64_t kTileRows = 128;                 // rows of a task
constexpr size_t kPanelBudget = size_t{64} << 20;  // bytes of packed keys and values that are held at once

size_t RoundUpToLine(size_t bytes) { return (bytes + 63) / 64 * 64; }

AttentionKernel KernelFor(DType dtype) {
  if (dtype == DType::kBF16) {
    if (const auto kernel = Bf16Attention()) return *kernel;
  }
  return SimdAttention();
}

/// Adds the values of a block that are not finite numbers to the rows that see them: whatever their weights, these
/// rows are lost, and only these.
void AddNotFinite(const AttentionCall& call, const RowGroup& rows, int64_t block, const Attended& seen) {
  const int64_t begin = std::max(block * kKeyBlock, call.first_key());
  const int64_t end = std::min((block + 1) * kKeyBlock, call.keys());
  const int64_t features = call.size().value;
  Dispatch(call.cache.v.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* const block_values = call.BlockOf<T>(call.cache.v, rows.kv_head, block);
    for (int64_t key = begin; key < end; ++key) {
      const T* values = block_values + (key - block * kKeyBlock) * call.cache.v.row_stride();
      for (int64_t i = 0; i < features; ++i) {
        const auto value = static_cast<float>(values[i]);
        if (std::isfinite(value)) continue;
        for (int64_t lane = 0; lane < rows.rows(); ++lane) {
          const int64_t own = call.PositionOf(rows.begin + lane);
          if (call.FirstSeen(own) <= key && key <= own) seen.output[i * rows.lanes + lane] += value;
        }
      }
    }
  });
}

/// A thread's time among blocks of keys.
class AttendingScope {
 public:
  explicit AttendingScope(const AttentionKernel& kernel) : leave_(kernel.leave) {
    if (kernel.enter != nullptr) kernel.enter();
  }
  ~AttendingScope() {
    if (leave_ != nullptr) leave_();
  }
  AttendingScope(const AttendingScope&) = delete;
  AttendingScope& operator=(const AttendingScope&) = delete;

 private:
  void (*leave_)();
};

/// Rows of one kv head in groups, and the memory that their work takes.
class Tile {
 public:
  static constexpr int64_t kGroups = kTileRows / kGroupRows;
  static size_t StateBytes(const HeadSize& size) {
    return RoundUpToLine(static_cast<size_t>(Attended::Floats(size.value)) * sizeof(float)) * kGroups;
  }
  /// Of queries, of one segment's state, of the workspace and of one panel.
  static size_t Bytes(const AttentionKernel& kernel, const HeadSize& size) {
    return RoundUpToLine(kernel.query_bytes(size)) * kGroups + StateBytes(size) +
           RoundUpToLine(kernel.workspace_bytes()) + RoundUpToLine(kernel.panel_bytes(size));
  }

  Tile(const AttentionKernel& kernel, const AttentionCall& call, int64_t kv_head, int64_t begin, int64_t end,
       std::byte* memory)
      : kernel_(kernel), call_(call), kv_head_(kv_head), begin_(begin), end_(end), queries_(memory) {
    state_ = queries_ + RoundUpToLine(kernel.query_bytes(call.size())) * kGroups;
    workspace_ = state_ + StateBytes(call.size());
    panel_ = workspace_ + RoundUpToLine(kernel.workspace_bytes());
  }

  [[nodiscard]] std::byte* state() const { return state_; }
  [[nodiscard]] std::byte* panel() const { return panel_; }

  /// Calls visit(index, group) for each group of rows.
  template <typename Visit>
  void ForGroups(const Visit& visit) const {
    int64_t index = 0;
    for (int64_t row = begin_; row < end_; row += kGroupRows, ++index) {
      const int64_t rows = std::min(kGroupRows, end_ - row);
      int64_t lanes = kernel_.fewest_lanes;
      while (lanes < rows) lanes *= 2;
      visit(index, RowGroup{kv_head_, row, row + rows, lanes});
    }
  }

  [[nodiscard]] Attended StateOf(std::byte* states, int64_t index, const RowGroup& group) const {
    const size_t bytes = StateBytes(call_.size()) / kGroups;
    return {reinterpret_cast<float*>(states + bytes * static_cast<size_t>(index)), group.lanes};
  }

  void Clear(std::byte* states) const {
    ForGroups([&](int64_t index, const RowGroup& group) {
      StateOf(states, index, group).Clear(group.lanes, call_.size().value);
    });
  }
  void PackQueries() const {
    ForGroups([&](int64_t index, const RowGroup& group) { kernel_.pack_queries(call_, group, QueriesOf(index)); });
  }
  void Attend(int64_t block, const std::byte* panel, std::byte* states) const {
    ForGroups([&](int64_t index, const RowGroup& group) {
      const Attended seen = StateOf(states, index, group);
      kernel_.attend(call_, group, QueriesOf(index), block, panel, seen, workspace_);
      if (!reinterpret_cast<const PanelHeader*>(panel)->all_finite) AddNotFinite(call_, group, block, seen);
    });
  }
  void Join(std::byte* part, std::byte* whole) const {
    ForGroups([&](int64_t index, const RowGroup& group) {
      JoinAttended(group, call_.size().value, StateOf(part, index, group), StateOf(whole, index, group));
    });
  }
  void Finish(std::byte* whole) const {
    ForGroups(
        [&](int64_t index, const RowGroup& group) { FinishAttended(call_, group, StateOf(whole, index, group)); });
  }

 private:
  [[nodiscard]] std::byte* QueriesOf(int64_t index) const {
    return queries_ + RoundUpToLine(kernel_.query_bytes(call_.size())) * static_cast<size_t>(index);
  }

  const AttentionKernel& kernel_;
  const AttentionCall& call_;
  int64_t kv_head_;
  int64_t begin_;
  int64_t end_;
  std::byte* queries_;
  std::byte* state_;
  std::byte* workspace_;
  std::byte* panel_;
};

/// The rows of a kv head are one tile: threads share its segments, and each packs what it reads, once.
void AttendFewRows(const Team& all, Scratch& scratch, const AttentionKernel& kernel, const AttentionCall& call) {
  const int64_t kv_heads = call.kv_heads();
  const auto range = call.BlocksOf(0, call.rows());
  const int64_t first = range.begin / kSegmentBlocks;
  const int64_t segments = (range.end + kSegmentBlocks - 1) / kSegmentBlocks - first;
  constexpr int64_t kWorthAThread = int64_t{1} << 16;  // elements of keys
  const Team one(1);
  const Team& team =
      kv_heads * (range.end - range.begin) * kKeyBlock * call.size().summed(1) < kWorthAThread ? one : all;
  const size_t tile_bytes = Tile::Bytes(kernel, call.size());
  const size_t state_bytes = Tile::StateBytes(call.size());
  const size_t all_states = state_bytes * static_cast<size_t>(kv_heads * segments);
  std::byte* states = scratch.Get<std::byte>(all_states + tile_bytes * static_cast<size_t>(team.threads()));
  std::byte* memory = states + all_states;
  const auto states_of = [&](int64_t head, int64_t segment) {
    return states + state_bytes * static_cast<size_t>(head * segments + segment);
  };

  team.Run(kv_heads * segments, [&](int64_t task, int worker) {
    const Tile tile(kernel, call, task / segments, 0, call.rows(), memory + tile_bytes * static_cast<size_t>(worker));
    std::byte* seen = states_of(task / segments, task % segments);
    tile.Clear(seen);
    tile.PackQueries();
    const int64_t begin = (first + task % segments) * kSegmentBlocks;
    const AttendingScope scope(kernel);
    for (int64_t block = std::max(begin, range.begin); block < std::min(begin + kSegmentBlocks, range.end); ++block) {
      kernel.pack(call, task / segments, block, tile.panel());
      tile.Attend(block, tile.panel(), seen);
    }
  });
  for (int64_t head = 0; head < kv_heads; ++head) {
    const Tile tile(kernel, call, head, 0, call.rows(), memory);
    for (int64_t segment = 1; segment < segments; ++segment) tile.Join(states_of(head, segment), states_of(head, 0));
    tile.Finish(states_of(head, 0));
  }
}

/// All blocks of some kv heads are packed first, then their tiles share them.
void AttendTiles(const Team& team, Scratch& scratch, const AttentionKernel& kernel, const AttentionCall& call) {
  const auto range = call.BlocksOf(0, call.rows());
  const int64_t blocks = range.end - range.begin;
  const size_t panel_bytes = RoundUpToLine(kernel.panel_bytes(call.size()));
  const size_t head_bytes = panel_bytes * static_cast<size_t>(blocks);
  const size_t state_bytes = Tile::StateBytes(call.size());
  const size_t worker_bytes = Tile::Bytes(kernel, call.size()) + state_bytes;

  // Many heads at once keep all threads busy to the end; the budget bounds what long prompts need.
  const auto affordable = static_cast<int64_t>(std::max<size_t>(1, kPanelBudget / head_bytes));
  const int64_t heads_at_once = std::min(call.kv_heads(), affordable);
  const size_t all_panels = head_bytes * static_cast<size_t>(heads_at_once);
  auto* panels = scratch.Get<std::byte>(all_panels + worker_bytes * static_cast<size_t>(team.threads()));

  for (int64_t head = 0; head < call.kv_heads(); head += heads_at_once) {
    const int64_t heads = std::min(heads_at_once, call.kv_heads() - head);
    team.Run(heads * blocks, [&](int64_t task, int) {
      kernel.pack(call, head + task / blocks, range.begin + task % blocks,
                  panels + static_cast<size_t>(task) * panel_bytes);
    });
    // Later rows see more keys: they come first, and the short ones fill the gaps at the end.
    const int64_t tiles = (call.rows() + kTileRows - 1) / kTileRows;
    team.Run(heads * tiles, [&](int64_t task, int worker) {
      const int64_t row = (tiles - 1 - task / heads) * kTileRows;
      const int64_t end = std::min(row + kTileRows, call.rows());
      std::byte* whole = panels + all_panels + worker_bytes * static_cast<size_t>(worker);
      const Tile tile(kernel, call, head + task % heads, row, end, whole + state_bytes);
      const std::byte* own_panels = panels + static_cast<size_t>(task % heads) * head_bytes;
      tile.PackQueries();
      const auto seen = call.BlocksOf(row, end);
      const AttendingScope scope(kernel);
      for (int64_t block = seen.begin; block < seen.end;) {
        std::byte* part = block == seen.begin ? whole : tile.state();
        tile.Clear(part);
        const int64_t segment_end = std::min((block / kSegmentBlocks + 1) * kSegmentBlocks, seen.end);
        for (; block < segment_end; ++block) {
          tile.Attend(block, own_panels + static_cast<size_t>(block - range.begin) * panel_bytes, part);
        }
        if (part != whole) tile.Join(part, whole);
      }
      tile.Finish(whole);
    });
  }
}

}  // namespace

void Attend(const Team& team, Scratch& scratch, TensorView q, int64_t position, const KvRows& keys,
            const AttentionOptions& options, TensorView out) {
  if (q.rows() == 0) return;
  const AttentionCall call{q, position, keys, out, options};
  const AttentionKernel kernel = KernelFor(q.dtype());
  if (call.rows() <= kTileRows) return AttendFewRows(team, scratch, kernel, call);
  AttendTiles(team, scratch, kernel, call);
}

}  // namespace runahead::cpu
