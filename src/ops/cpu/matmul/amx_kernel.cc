// Products of bf16 pairs by AMX tiles.
//
// Weights are the left operand, 16 features by 32 input features as they lie in memory, so that they need no
// transposing; slices of x [units, 16 rows] are the right one. A tile of sums is [16 features, 16 rows] and is turned
// when it leaves. Four tiles of sums are computed at a time, from two of each operand. A panel packed is [steps, 32
// features, 32 input features]: what a step of the summed dimension reads lies together.
#include <hwy/base.h>

#include "ops/cpu/matmul/amx_sums.h"
#include "ops/cpu/matmul/kernel.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "ops/cpu/processor.h"
#include "ops/cpu/tiles.h"

namespace runahead::cpu {
namespace {

constexpr int64_t kSide = kTileSide;
constexpr int64_t kPanelFeatures = 2 * kSide;
constexpr int64_t kStepUnits = 16;  // units of a tile: 64 bytes of a row
constexpr int64_t kTileBytes = kSide * 64;
constexpr int64_t kTileFloats = kSide * kSide;
constexpr int64_t kStepBytes = 2 * kTileBytes;  // bytes of a step of a packed panel
constexpr int64_t kLine = 64;                   // bytes that caches move
// Steps of a panel that are multiplied in one go. By many slices: what the first cache holds beside the slices that
// go by. By few: a quarter of a page of each row, in whose order the next ones are asked for.
constexpr int64_t kDepthSteps = 8;
constexpr int64_t kFewDepthSteps = 16;

/// Tiles 0 to 3: sums [feature half][slice]; 4 and 5: weights; 6 and 7: x.
TileShapes ShapesFor(int64_t slice_width) {
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) {
    const bool weights = tile == 4 || tile == 5;
    shapes.rows[tile] = kSide;
    shapes.column_bytes[tile] = static_cast<uint16_t>(weights ? 64 : 4 * slice_width);
  }
  return shapes;
}

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

// ---- Weights on their way -----------------------------------------------------------------------------------

/// Steps [begin, begin + steps) of panel `index` of row-major weights, packed. What is absent is zeros.
void PackSteps(const Matrix& weights, int64_t index, int64_t begin, int64_t steps, std::byte* to) {
  const int64_t first = index * kPanelFeatures;
  const int64_t rows = std::min(kPanelFeatures, weights.rows - first);
  const int64_t row_bytes = 2 * weights.depth;
  const int64_t whole = std::clamp<int64_t>(row_bytes / kLine - begin, 0, steps);
  for (int64_t i = 0; i < kPanelFeatures; ++i) {
    std::byte* line = to + i * kLine;
    if (i >= rows) {
      for (int64_t step = 0; step < steps; ++step) std::memset(line + step * kStepBytes, 0, kLine);
      continue;
    }
    const std::byte* row = weights.data + (first + i) * row_bytes + begin * kLine;
    for (int64_t step = 0; step < whole; ++step) {
      _mm512_storeu_si512(line + step * kStepBytes, _mm512_loadu_si512(row + step * kLine));
    }
    if (whole < steps) {
      const int64_t left = std::clamp<int64_t>(row_bytes - (begin + whole) * kLine, 0, kLine);
      std::memset(line + whole * kStepBytes, 0, kLine);
      std::memcpy(line + whole * kStepBytes, row + whole * kLine, static_cast<size_t>(left));
    }
  }
}

/// Steps of a panel's rows, packed or where they are: line `step` of row i is at rows + i * stride_bytes + step *
/// step_bytes.
struct Steps {
  const std::byte* rows = nullptr;
  int64_t stride_bytes = kLine;
  int64_t step_bytes = kStepBytes;
};

/// What is done with the lines of the steps that come next while others are multiplied.
enum class Meanwhile : uint8_t { kNothing, kFetch, kPack };

/// Goes over whole lines of a panel's rows in the order of memory: asks for them, or packs them.
class Ahead {
 public:
  Ahead() = default;
  /// `lines` lines of each row, which are `stride_bytes` apart; packed to `to`, while those `further` bytes on are
  /// asked for.
  Ahead(Meanwhile work, const std::byte* rows, int64_t stride_bytes, int64_t lines, int64_t further, std::byte* to)
      : work_(work),
        row_(rows),
        to_(to),
        stride_bytes_(stride_bytes),
        further_(further),
        lines_(lines),
        left_(kPanelFeatures * lines) {}

  [[nodiscard]] int64_t left() const { return left_; }
  /// The next `lines` lines, or those that are left.
  void Go(int64_t lines) {
    lines = std::min(lines, left_);
    left_ -= lines;
    while (lines > 0) {
      const int64_t n = std::min(lines, lines_ - line_);
      if (work_ == Meanwhile::kFetch) {
        Fetch(n);
      } else {
        Pack(n);
      }
      lines -= n;
      line_ += n;
      if (line_ < lines_) return;
      line_ = 0;
      row_ += stride_bytes_;
      to_ += kLine;
    }
  }

 private:
  void Fetch(int64_t n) const {
    const std::byte* from = row_ + line_ * kLine;
    for (int64_t i = 0; i < n; ++i) __builtin_prefetch(from + i * kLine, 0, 2);
  }
  void Pack(int64_t n) const {
    const std::byte* from = row_ + line_ * kLine;
    std::byte* to = to_ + line_ * kStepBytes;
    for (int64_t i = 0; i < n; ++i) {
      __builtin_prefetch(from + i * kLine + further_, 0, 2);
      _mm512_storeu_si512(to + i * kStepBytes, _mm512_loadu_si512(from + i * kLine));
    }
  }

  Meanwhile work_ = Meanwhile::kNothing;
  const std::byte* row_ = nullptr;
  std::byte* to_ = nullptr;
  int64_t stride_bytes_ = 0;
  int64_t further_ = 0;
  int64_t lines_ = 0;
  int64_t left_ = 0;
  int64_t line_ = 0;
};

// ---- Products -------------------------------------------------------------------------------------------------

/// sums [2 halves][kSlices][kSide features, kSide rows] = or += weights x, while `ahead` goes over `lines` lines in
/// each step. Slices: [units, width].
template <int kSlices>
void Multiply(const Steps& weights, const std::byte* const* slices, int64_t width, int64_t steps, bool accumulate,
              float* sums, Ahead& ahead, int64_t lines) {
  const int64_t sums_stride = 4 * width;
  if (accumulate) {
    LoadTile<0>(sums, sums_stride);
    LoadTile<2>(sums + kSlices * kTileFloats, sums_stride);
    if constexpr (kSlices == 2) {
      LoadTile<1>(sums + kTileFloats, sums_stride);
      LoadTile<3>(sums + 3 * kTileFloats, sums_stride);
    }
  } else {
    ZeroTile<0>();
    ZeroTile<1>();
    ZeroTile<2>();
    ZeroTile<3>();
  }
  const std::byte* lower = weights.rows;
  const std::byte* upper = lower + kSide * weights.stride_bytes;
  const std::byte* first = slices[0];
  const std::byte* second = slices[kSlices - 1];
  const int64_t slice_step = kStepUnits * 4 * width;
  for (int64_t step = 0; step < steps; ++step) {
    LoadTile<6>(first, 4 * width);
    LoadTile<4>(lower, weights.stride_bytes);
    MultiplyTiles<0, 4, 6>();
    LoadTile<5>(upper, weights.stride_bytes);
    MultiplyTiles<2, 5, 6>();
    if constexpr (kSlices == 2) {
      LoadTile<7>(second, 4 * width);
      MultiplyTiles<1, 4, 7>();
      MultiplyTiles<3, 5, 7>();
    }
    ahead.Go(lines);
    lower += weights.step_bytes;
    upper += weights.step_bytes;
    first += slice_step;
    second += slice_step;
  }
  StoreTile<0>(sums, sums_stride);
  StoreTile<2>(sums + kSlices * kTileFloats, sums_stride);
  if constexpr (kSlices == 2) {
    StoreTile<1>(sums + kTileFloats, sums_stride);
    StoreTile<3>(sums + 3 * kTileFloats, sums_stride);
  }
}

HWY_POP_ATTRIBUTES

// ---- Blocks -------------------------------------------------------------------------------------------------

/// Some steps of one panel.
struct Part {
  int64_t panel = 0;
  int64_t begin = 0;
  int64_t steps = 0;
};

/// The parts of a block's panels. By many slices they are packed, one ahead of the one in use, while the one behind
/// that comes from memory; by few they are read where they are, and the next is asked for.
class Parts {
 public:
  /// `memory`: two parts of `most_steps`.
  Parts(const Kernel& kernel, const Matrix& matrix, bool few, int64_t most_steps, std::byte* memory)
      : matrix_(matrix),
        row_bytes_(2 * matrix.depth),
        panel_bytes_(static_cast<int64_t>(kernel.PanelBytes(matrix.depth))),
        few_(few),
        part_bytes_(most_steps * kStepBytes),
        memory_(memory) {}

  /// The part's steps, and in `ahead` the work on those that come next, for the time of their use. Where there is no
  /// next part, `next` is this one; where there is none behind that, `then` is the next.
  Steps Take(const Part& part, const Part& next, const Part& then, Ahead& ahead) {
    if (matrix_.packed) return {matrix_.data + part.panel * panel_bytes_ + part.begin * kStepBytes};
    const bool next_whole = Lines(next) != Lines(part) && Whole(next);
    std::byte* packed = memory_ + use_ * part_bytes_;
    if (few_) {
      if (next_whole) ahead = {Meanwhile::kFetch, Lines(next), row_bytes_, next.steps, 0, nullptr};
      if (Whole(part)) return {Lines(part), row_bytes_, kLine};
      PackSteps(matrix_, part.panel, part.begin, part.steps, packed);
      return {packed};
    }
    if (!ready_) PackSteps(matrix_, part.panel, part.begin, part.steps, packed);
    use_ = 1 - use_;
    ready_ = next_whole;
    if (ready_) {
      ahead = {Meanwhile::kPack,
               Lines(next),
               row_bytes_,
               next.steps,
               Lines(then) - Lines(next),
               memory_ + use_ * part_bytes_};
    }
    return {packed};
  }

 private:
  /// Whether no row and no line of it is cut short.
  [[nodiscard]] bool Whole(const Part& part) const {
    return (part.panel + 1) * kPanelFeatures <= matrix_.rows && (part.begin + part.steps) * kLine <= row_bytes_;
  }
  [[nodiscard]] const std::byte* Lines(const Part& part) const {
    return matrix_.data + part.panel * kPanelFeatures * row_bytes_ + part.begin * kLine;
  }

  const Matrix& matrix_;
  int64_t row_bytes_;
  int64_t panel_bytes_;
  bool few_;
  int64_t part_bytes_;
  std::byte* memory_;
  int64_t use_ = 0;
  bool ready_ = false;  // the part that comes next is packed
};

/// One block: what its parts share.
struct Product {
  const Kernel& kernel;
  const Block& block;
  int64_t width;
  int64_t steps;

  [[nodiscard]] int64_t panels() const { return block.panel_end - block.panel_begin; }
  [[nodiscard]] int64_t pairs() const { return (block.slice_end - block.slice_begin + 1) / 2; }

  /// sums [2 halves][slices of the pair][features, rows] = or += weights times the pair's slices. Returns the slices.
  int64_t MultiplyPair(const Steps& weights, const Part& part, int64_t pair, float* sums, Ahead& ahead,
                       int64_t lines) const {
    const int64_t slice = block.slice_begin + 2 * pair;
    const int64_t slices = std::min<int64_t>(2, block.slice_end - slice);
    const std::byte* x[2];
    for (int64_t i = 0; i < 2; ++i) {
      x[i] = block.x->Slice(slice + std::min(i, slices - 1)) + part.begin * kStepUnits * 4 * width;
    }
    const auto multiply = slices == 1 ? &Multiply<1> : &Multiply<2>;
    multiply(weights, x, width, part.steps, part.begin > 0, sums, ahead, lines);
    return slices;
  }

  /// The same sums to the sink.
  void StoreSums(const float* sums, int64_t panel, int64_t pair, int64_t slices) const {
    const PackedRows& x = *block.x;
    const int64_t feature = panel * kPanelFeatures;
    const int64_t features = std::min(kPanelFeatures, block.weights->rows - feature);
    for (int64_t i = 0; i < slices; ++i) {
      const int64_t slice = block.slice_begin + 2 * pair + i;
      StoreTiles(*block.sink, {sums + i * kTileFloats, sums + (slices + i) * kTileFloats, width},
                 slice * x.slice_rows, x.RowsOf(slice), feature, features);
    }
  }
};

/// Up to two slices go panel by panel, so that the weights are read in the order of memory. More take the same steps
/// of all panels before the next, so that a part stays in the first cache while all slices go by; their sums wait in
/// the second.
void MultiplyBlock(const Kernel& kernel, const Block& block) {
  const Product product{kernel, block, block.x->slice_rows, block.x->units / kStepUnits};
  const TileScope scope(ShapesFor(product.width));
  const int64_t pairs = product.pairs();
  const bool few = pairs == 1;
  const int64_t most_steps = few ? kFewDepthSteps : kDepthSteps;
  const int64_t depths = (product.steps + most_steps - 1) / most_steps;
  const int64_t parts = depths * product.panels();
  const int64_t sums_of_panel = pairs * 4 * kTileFloats;
  auto* memory = block.scratch->Get<std::byte>(
      static_cast<size_t>(2 * most_steps * kStepBytes + (few ? 1 : product.panels()) * sums_of_panel * 4));
  auto* all_sums = reinterpret_cast<float*>(memory + 2 * most_steps * kStepBytes);
  const auto part_at = [&](int64_t index) -> Part {
    const int64_t panel = few ? index / depths : index % product.panels();
    const int64_t begin = (few ? index % depths : index / product.panels()) * most_steps;
    return {block.panel_begin + panel, begin, std::min(most_steps, product.steps - begin)};
  };
  Parts all_weights(kernel, *block.weights, few, most_steps, memory);
  for (int64_t index = 0; index < parts; ++index) {
    const Part part = part_at(index);
    Ahead ahead;
    const Steps weights = all_weights.Take(part, part_at(std::min(index + 1, parts - 1)),
                                           part_at(std::min(index + 2, parts - 1)), ahead);
    const int64_t lines = (ahead.left() + pairs * part.steps - 1) / (pairs * part.steps);
    const bool last = part.begin + part.steps == product.steps;
    for (int64_t pair = 0; pair < pairs; ++pair) {
      float* sums = all_sums + (few ? 0 : (part.panel - block.panel_begin) * sums_of_panel) + pair * 4 * kTileFloats;
      const int64_t slices = product.MultiplyPair(weights, part, pair, sums, ahead, lines);
      if (last) product.StoreSums(sums, part.panel, pair, slices);
    }
    ahead.Go(ahead.left());
  }
}

void PackWholePanel(const Kernel& /*kernel*/, const Matrix& weights, int64_t index, std::byte* panel) {
  PackSteps(weights, index, 0, (2 * weights.depth + kLine - 1) / kLine, panel);
}

double Spin(int64_t rounds) {
  const TileScope scope(ShapesFor(kSide));
  ZeroTile<0>();
  ZeroTile<1>();
  ZeroTile<2>();
  ZeroTile<3>();
  ZeroTile<4>();
  ZeroTile<6>();
  for (int64_t round = 0; round < rounds; ++round) {
    MultiplyTiles<0, 4, 6>();
    MultiplyTiles<1, 4, 6>();
    MultiplyTiles<2, 4, 6>();
    MultiplyTiles<3, 4, 6>();
  }
  return 4 * 2.0 * kSide * kSide * 2 * kStepUnits * static_cast<double>(rounds);
}

Kernel MakeKernel() {
  Kernel kernel;
  kernel.name = "AMX_BF16";
  kernel.arithmetic = DType::kBF16;
  kernel.most_slice_rows = kSide;
  kernel.padded_slices = true;
  kernel.panel_features = kPanelFeatures;
  kernel.unit_multiple = kStepUnits;
  kernel.pack_panel = &PackWholePanel;
  kernel.multiply = &MultiplyBlock;
  // As timed on 2 MiB of second cache.
  kernel.slices_at_once = 2;
  kernel.block_rows = 320;
  kernel.block_panels = 4;
  kernel.block_bytes = size_t{1} << 40;
  kernel.kept_bytes = size_t{3} << 19;
  kernel.deep_rows = 256;
  kernel.deep_panels = 16;
  kernel.spin = &Spin;
  return kernel;
}

}  // namespace

const Kernel* Bf16TileKernel() {
  static const Kernel kernel = MakeKernel();
  return HasBf16Tiles() ? &kernel : nullptr;
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

const Kernel* Bf16TileKernel() { return nullptr; }

}  // namespace runahead::cpu

#endif
