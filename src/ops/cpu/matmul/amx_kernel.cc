// Products of bf16 pairs by AMX tiles.
//
// Weights are the left operand, 16 features by 32 input features as they lie in memory, so that they need no
// transposing; slices of x [units, 16 rows] are the right one. A tile of sums is [16 features, 16 rows] and is turned
// when it leaves. Four tiles of sums are computed at a time, from two of each operand. A panel packed is [steps, 32
// features, 32 input features]: what a step of the summed dimension reads lies together.
#include <hwy/base.h>

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

namespace runahead::cpu {
namespace {

constexpr int64_t kSide = 16;  // features, or rows, of a tile
constexpr int64_t kPanelFeatures = 2 * kSide;
constexpr int64_t kStepUnits = 16;  // units of a tile: 64 bytes of a row
constexpr int64_t kTileBytes = kSide * 64;
constexpr int64_t kTileFloats = kSide * kSide;
constexpr int64_t kStepBytes = 2 * kTileBytes;  // bytes of a step of a packed panel
constexpr int64_t kDepthSteps = 16;             // steps of a panel that the first cache holds beside what it meets
constexpr int64_t kLine = 64;                   // bytes that caches move
constexpr int64_t kAllInOneRow = int64_t{1} << 40;

// ---- Instructions: own assembly, since the compiler's intrinsics do not say which memory they read -------------

/// The shapes of the tiles, as LDTILECFG takes them.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

/// Tiles 0 to 3: sums [feature half][slice]; 4 and 5: weights; 6 and 7: x. Gives the tiles back when it dies.
class TileScope {
 public:
  explicit TileScope(int64_t slice_width) {
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) {
      const bool weights = tile == 4 || tile == 5;
      shapes.rows[tile] = kSide;
      shapes.column_bytes[tile] = static_cast<uint16_t>(weights ? 64 : 4 * slice_width);
    }
    asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
  }
  ~TileScope() { asm volatile("tilerelease" ::: "memory"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

template <int kTile>
inline void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
inline void LoadTile(const void* from, int64_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(kTile) : "memory");
}
template <int kTile>
inline void StoreTile(void* to, int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes), "i"(kTile) : "memory");
}
template <int kSums, int kWeights, int kX>
inline void MultiplyTiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kWeights), "i"(kX));
}

// ---- Weights on their way -----------------------------------------------------------------------------------

/// Lines of row-major weights that are asked for while others are multiplied.
struct Ahead {
  const std::byte* rows = nullptr;  // rows of kPanelFeatures features
  int64_t stride_bytes = 0;
  int64_t lines_of_row = 0;
  int64_t next = 0;  // line
  int64_t end = 0;

  void Fetch(int64_t lines) {
    const int64_t stop = std::min(end, next + lines);
    for (; next < stop; ++next) {
      __builtin_prefetch(rows + next / lines_of_row * stride_bytes + next % lines_of_row * kLine, 0, 2);
    }
  }
};

/// Both halves of a panel's features, in steps of 64 bytes of each row.
struct Weights {
  const std::byte* half[2];
  int64_t stride_bytes;
  int64_t step_bytes;
};

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

/// sums [2 halves][kSlices][kSide features, kSide rows] = or += weights x. Slices: [units, width].
template <int kSlices>
void Multiply(const Weights& weights, const std::byte* const* slices, int64_t width, int64_t steps, bool accumulate,
              float* sums, Ahead& ahead, int64_t lines_of_step) {
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
  const std::byte* lower = weights.half[0];
  const std::byte* upper = weights.half[1];
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
    ahead.Fetch(lines_of_step);
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

/// to[j][i] = from[i][j] of a tile of sums; rows of `to` are kPanelFeatures apart.
void Turn(const float* from, float* to) {
  for (int64_t j = 0; j < kSide; j += 4) {
    __m512 row[4];
    for (int64_t i = 0; i < 4; ++i) {
      const auto block = [&](int64_t b) { return _mm_loadu_ps(from + (4 * b + i) * kSide + j); };
      row[i] = _mm512_castps128_ps512(block(0));
      row[i] = _mm512_insertf32x4(row[i], block(1), 1);
      row[i] = _mm512_insertf32x4(row[i], block(2), 2);
      row[i] = _mm512_insertf32x4(row[i], block(3), 3);
    }
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(row[0], row[1]));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(row[0], row[1]));
    const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(row[2], row[3]));
    const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(row[2], row[3]));
    _mm512_storeu_pd(to + j * kPanelFeatures, _mm512_unpacklo_pd(low01, low23));
    _mm512_storeu_pd(to + (j + 1) * kPanelFeatures, _mm512_unpackhi_pd(low01, low23));
    _mm512_storeu_pd(to + (j + 2) * kPanelFeatures, _mm512_unpacklo_pd(high01, high23));
    _mm512_storeu_pd(to + (j + 3) * kPanelFeatures, _mm512_unpackhi_pd(high01, high23));
  }
}

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

HWY_POP_ATTRIBUTES

// ---- Blocks -------------------------------------------------------------------------------------------------

/// One block: what its steps share.
struct Product {
  const Kernel& kernel;
  const Block& block;
  int64_t width;
  int64_t steps;

  /// Sums [2 halves][slices][features, rows] of panel `panel` and slices from `slice` on, to the sink.
  void StoreSums(const float* sums, int64_t panel, int64_t slice, int64_t slices) const {
    alignas(64) float turned[kSide * kPanelFeatures];
    const PackedRows& x = *block.x;
    const int64_t feature = panel * kPanelFeatures;
    const int64_t features = std::min(kPanelFeatures, block.weights->rows - feature);
    for (int64_t i = 0; i < slices; ++i) {
      const float* lower = sums + i * kTileFloats;
      const float* upper = sums + (slices + i) * kTileFloats;
      if (width == 1) {
        std::copy_n(lower, kSide, turned);
        std::copy_n(upper, kSide, turned + kSide);
      } else {
        Turn(lower, turned);
        Turn(upper, turned + kSide);
      }
      Store(*block.sink, turned, kPanelFeatures, (slice + i) * x.slice_rows, x.RowsOf(slice + i), feature, features);
    }
  }
};

Weights Packed(const std::byte* panel) { return {{panel, panel + kTileBytes}, kLine, kStepBytes}; }

/// Up to two slices: the weights are read once, in the order of memory, from where they are.
void MultiplyFew(const Product& product) {
  const Block& block = product.block;
  const Matrix& matrix = *block.weights;
  const int64_t slices = block.slice_end - block.slice_begin;
  const auto panel_bytes = static_cast<int64_t>(product.kernel.PanelBytes(matrix.depth));
  const int64_t row_bytes = 2 * matrix.depth;
  auto* copy = block.scratch->Get<std::byte>(static_cast<size_t>(panel_bytes));
  alignas(64) float sums[4 * kTileFloats];
  const std::byte* slice[2] = {block.x->Slice(block.slice_begin), block.x->Slice(block.slice_end - 1)};
  const int64_t all_bytes =
      matrix.packed ? product.kernel.Panels(matrix.rows) * panel_bytes : matrix.rows * row_bytes;
  for (int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
    const int64_t bytes = matrix.packed ? panel_bytes : kPanelFeatures * row_bytes;
    const std::byte* data = matrix.data + panel * bytes;
    Weights weights{{data, data + kSide * row_bytes}, row_bytes, kLine};
    if (matrix.packed) {
      weights = Packed(data);
    } else if (row_bytes % kLine != 0 || (panel + 1) * kPanelFeatures > matrix.rows) {
      PackSteps(matrix, panel, 0, product.steps, copy);
      weights = Packed(copy);
    }
    const int64_t left = std::max<int64_t>(0, all_bytes - (panel + 1) * bytes);
    Ahead ahead{data + bytes, 0, kAllInOneRow, 0, std::min(bytes, left) / kLine};
    const int64_t lines = (bytes / kLine + product.steps - 1) / product.steps;
    if (slices == 1) {
      Multiply<1>(weights, slice, product.width, product.steps, false, sums, ahead, lines);
    } else {
      Multiply<2>(weights, slice, product.width, product.steps, false, sums, ahead, lines);
    }
    product.StoreSums(sums, panel, block.slice_begin, slices);
  }
}

/// Many slices: some of the summed dimension at a time, so that a panel's part stays in the first cache while all
/// slices go by.
void MultiplyMany(const Product& product) {
  const Block& block = product.block;
  const Matrix& matrix = *block.weights;
  const int64_t pairs = (block.slice_end - block.slice_begin + 1) / 2;
  const int64_t panels = block.panel_end - block.panel_begin;
  const auto panel_bytes = static_cast<int64_t>(product.kernel.PanelBytes(matrix.depth));
  const int64_t row_bytes = 2 * matrix.depth;
  auto* memory =
      block.scratch->Get<std::byte>(static_cast<size_t>(kDepthSteps * kStepBytes + panels * pairs * 4 * kTileBytes));
  auto* all_sums = reinterpret_cast<float*>(memory + kDepthSteps * kStepBytes);
  for (int64_t begin = 0; begin < product.steps; begin += kDepthSteps) {
    const int64_t steps = std::min(kDepthSteps, product.steps - begin);
    const bool last = begin + steps == product.steps;
    for (int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
      Weights weights = Packed(memory);
      Ahead ahead;
      if (matrix.packed) {
        weights = Packed(matrix.data + panel * panel_bytes + begin * kStepBytes);
      } else {
        PackSteps(matrix, panel, begin, steps, memory);
        const bool next_panel = panel + 1 < block.panel_end;
        const int64_t next = next_panel ? panel + 1 : block.panel_begin;
        const int64_t next_begin = next_panel ? begin : begin + kDepthSteps;
        const int64_t lines = std::clamp<int64_t>(row_bytes / kLine - next_begin, 0, kDepthSteps);
        const int64_t rows = std::min(kPanelFeatures, matrix.rows - next * kPanelFeatures);
        ahead = {matrix.data + next * kPanelFeatures * row_bytes + next_begin * kLine, row_bytes, lines, 0,
                 lines * rows};
      }
      const int64_t lines_of_step = (ahead.end + pairs * steps - 1) / (pairs * steps);
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const int64_t slice = block.slice_begin + 2 * pair;
        const int64_t slices = std::min<int64_t>(2, block.slice_end - slice);
        const std::byte* x[2];
        for (int64_t i = 0; i < 2; ++i) {
          x[i] = block.x->Slice(slice + std::min(i, slices - 1)) + begin * kStepUnits * 4 * kSide;
        }
        float* sums = all_sums + ((panel - block.panel_begin) * pairs + pair) * 4 * kTileFloats;
        if (slices == 1) {
          Multiply<1>(weights, x, kSide, steps, begin > 0, sums, ahead, lines_of_step);
        } else {
          Multiply<2>(weights, x, kSide, steps, begin > 0, sums, ahead, lines_of_step);
        }
        if (last) product.StoreSums(sums, panel, slice, slices);
      }
    }
  }
}

void MultiplyBlock(const Kernel& kernel, const Block& block) {
  const Product product{kernel, block, block.x->slice_rows, block.x->units / kStepUnits};
  const TileScope scope(product.width);
  if (block.slice_end - block.slice_begin <= 2) return MultiplyFew(product);
  MultiplyMany(product);
}

void PackWholePanel(const Kernel& /*kernel*/, const Matrix& weights, int64_t index, std::byte* panel) {
  PackSteps(weights, index, 0, (2 * weights.depth + kLine - 1) / kLine, panel);
}

double Spin(int64_t rounds) {
  const TileScope scope(kSide);
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
  kernel.block_rows = 512;
  kernel.block_panels = 8;
  kernel.block_bytes = size_t{1} << 40;
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
