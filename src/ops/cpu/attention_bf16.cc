// Attention with products of bf16 pairs, for x86 processors that have them: as vectors (AVX-512 BF16) or as tiles
// (AMX). Lanes are rows, as everywhere; a lane of 32 bits holds two neighbours of the summed dimension.
#include "ops/cpu/attention_bf16.h"

#include <hwy/base.h>

#include "ops/cpu/attention_bf16_lanes.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "ops/cpu/processor.h"
#include "ops/cpu/tiles.h"

namespace runahead::cpu {
namespace {

/// One worker's memory. Weights take the place of scores that have been read, so that a block's working set fits the
/// first cache.
struct Workspace {
  explicit Workspace(std::byte* memory)
      : scores(reinterpret_cast<float*>(memory)),
        factors(scores + kKeyBlock * kGroupRows),
        weights(reinterpret_cast<uint32_t*>(memory)) {}
  static constexpr size_t kBytes = (kKeyBlock + 1) * kGroupRows * sizeof(float);

  float* scores;      // [kKeyBlock, lanes]
  float* factors;     // [lanes], of what was summed before
  uint32_t* weights;  // [kKeyBlock / 2, lanes], pairs of bf16
};

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

// ---- Products --------------------------------------------------------------------------------------------------

/// Operands of c = a b, or c = factors * c + a b. a: keys or values of a panel, whose summed dimension takes `steps`
/// of kDepth; b: [steps * kDepth / 2, lanes] pairs; c: [count, lanes].
struct Product {
  const uint16_t* a;
  int64_t a_step;  // elements from one step to the next
  int64_t count;   // rows of a and c, a multiple of 16
  int64_t steps;
  const uint32_t* b;
  float* c;
  int64_t lanes;
  const float* factors;  // [lanes], or null where c is not read
  RowsAhead ahead;
};

/// Rows [first, first + kRows) of c. Pairs of keys' features follow each other; pairs of values' keys lie a row of
/// features apart.
template <typename V, bool kValues, int kRows, int kVectors>
inline void MultiplyBlock(const Product& product, int64_t first, int64_t lane) {
  constexpr int64_t kRowStride = kValues ? 2 : kDepth;
  const int64_t pair_stride = kValues ? product.a_step / (kDepth / 2) : 2;
  typename V::Floats sum[kRows][kVectors];
  const int64_t lanes = product.lanes;
  float* c = product.c + first * lanes + lane;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = product.factors == nullptr ? V::Zero()
                                             : V::Mul(V::Load(product.factors + lane + v * V::kLanes),
                                                      V::Load(c + i * lanes + v * V::kLanes));
    }
  }
  for (int64_t step = 0; step < product.steps; ++step) {
    const uint16_t* a = product.a + step * product.a_step + first * kRowStride;
    const uint32_t* b = product.b + step * (kDepth / 2) * lanes + lane;
    for (int64_t pair = 0; pair < kDepth / 2; ++pair) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        uint32_t left;
        std::memcpy(&left, a + i * kRowStride + pair * pair_stride, sizeof left);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sum[i][v] = V::Dot(sum[i][v], left, b + pair * lanes + v * V::kLanes);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) V::Store(c + i * lanes + v * V::kLanes, sum[i][v]);
  }
}

struct Vectors {
  /// Sums are scaled where they are read.
  static void Scale(const Product& /*product*/) {}

  template <typename V, bool kValues>
  static void Multiply(const Product& product) {
    for (int64_t i = 0; i < product.count; i += 16) {
      product.ahead.Fetch(i * kKeyBlock / product.count, (i + 16) * kKeyBlock / product.count);
      if (product.lanes > V::kLanes) {
        MultiplyBlock<V, kValues, 8, 2>(product, i, 0);
        MultiplyBlock<V, kValues, 8, 2>(product, i + 8, 0);
      } else {
        MultiplyBlock<V, kValues, 16, 1>(product, i, 0);
      }
    }
  }
};

struct Tiles {
  /// All tiles are 16 rows of 64 bytes: 0 to 3 sum, 4 and 5 hold rows of a, 6 and 7 columns of b.
  static void Configure() {
    static constexpr TileShapes kShapes{
        .column_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {16, 16, 16, 16, 16, 16, 16, 16},
    };
    ConfigureTiles(kShapes);
  }

  /// c = factors * c, before Multiply, and long enough: tiles wait for stores that are on their way.
  static void Scale(const Product& product) {
    for (int64_t lane = 0; lane < product.lanes; lane += 16) {
      const __m512 factor = _mm512_loadu_ps(product.factors + lane);
      if (Wide::Same(factor, _mm512_set1_ps(1))) continue;
      for (int64_t i = 0; i < product.count; ++i) {
        float* c = product.c + i * product.lanes + lane;
        _mm512_storeu_ps(c, _mm512_mul_ps(factor, _mm512_loadu_ps(c)));
      }
    }
  }

  template <typename V, bool kValues>
  static void Multiply(const Product& product) {
    static_assert(V::kLanes == 16);
    int64_t i = 0;
    for (; i + 32 <= product.count; i += 32) {
      if (product.lanes > 16) {
        MultiplyBlock<2, 2>(product, i);
      } else {
        MultiplyBlock<2, 1>(product, i);
      }
    }
    if (i == product.count) return;
    if (product.lanes > 16) {
      MultiplyBlock<1, 2>(product, i);
    } else {
      MultiplyBlock<1, 1>(product, i);
    }
  }

 private:
  template <int kRows, int kColumns>
  static void MultiplyBlock(const Product& product, int64_t first) {
    const int64_t stride = product.lanes * 4;
    float* c = product.c + first * product.lanes;
    float* below = c + 16 * product.lanes;
    if (product.factors != nullptr) {
      LoadTile<0>(c, stride);
      if constexpr (kColumns > 1) LoadTile<1>(c + 16, stride);
      if constexpr (kRows > 1) LoadTile<2>(below, stride);
      if constexpr (kRows > 1 && kColumns > 1) LoadTile<3>(below + 16, stride);
    } else {
      ZeroTile<0>();
      if constexpr (kColumns > 1) ZeroTile<1>();
      if constexpr (kRows > 1) ZeroTile<2>();
      if constexpr (kRows > 1 && kColumns > 1) ZeroTile<3>();
    }
    for (int64_t step = 0; step < product.steps; ++step) {
      const uint16_t* a = product.a + step * product.a_step + first * kDepth;
      const uint32_t* b = product.b + step * (kDepth / 2) * product.lanes;
      LoadTile<4>(a, 64);
      LoadTile<6>(b, stride);
      MultiplyTiles<0, 4, 6>();
      if constexpr (kColumns > 1) {
        LoadTile<7>(b + 16, stride);
        MultiplyTiles<1, 4, 7>();
      }
      if constexpr (kRows > 1) {
        LoadTile<5>(a + 16 * kDepth, 64);
        MultiplyTiles<2, 5, 6>();
      }
      if constexpr (kRows > 1 && kColumns > 1) MultiplyTiles<3, 5, 7>();
    }
    StoreTile<0>(c, stride);
    if constexpr (kColumns > 1) StoreTile<1>(c + 16, stride);
    if constexpr (kRows > 1) StoreTile<2>(below, stride);
    if constexpr (kRows > 1 && kColumns > 1) StoreTile<3>(below + 16, stride);
  }
};

// ---- Softmax ---------------------------------------------------------------------------------------------------

/// cap * tanh(x / cap), times log2 e, to an absolute error of cap * 1e-5.
template <typename V>
inline typename V::Floats Cap(typename V::Floats x, float cap) {
  const typename V::Floats one = V::Set(1);
  typename V::Floats exponent = V::Mul(x, V::Set(2 * kLog2E / cap));
  exponent = V::Max(V::Set(-60), V::Min(V::Set(60), exponent));
  const typename V::Floats e = Exp2<V>(exponent, kOfCaps, 1);
  return V::Mul(V::Div(V::Sub(e, one), V::Add(e, one)), V::Set(cap * kLog2E));
}

/// The biases of one key for vectors of rows, whose query heads take turns.
class KeyBiases {
 public:
  KeyBiases(const AttentionCall& call, const RowGroup& rows, int64_t lane) : one_head_(call.group() == 1) {
    for (int64_t i = 0; i < Wide::kLanes; ++i) {
      const int64_t row = std::min(rows.begin + lane + i, rows.end - 1);
      const int64_t head = rows.kv_head * call.group() + row % call.group();
      heads_[i] = call.options.key_bias.As<float>() + head * call.options.key_bias.row_stride();
    }
  }
  template <typename V>
  [[nodiscard]] typename V::Floats Of(int64_t key) const {
    if (one_head_) return V::Set(heads_[0][key]);
    float biases[V::kLanes];
    for (int64_t i = 0; i < V::kLanes; ++i) biases[i] = heads_[i][key];
    return V::Load(biases);
  }

 private:
  bool one_head_;
  const float* heads_[Wide::kLanes];
};

/// One block of keys for one group of rows.
struct Work {
  const AttentionCall& call;
  const RowGroup& rows;
  int64_t base;  // key 0 of the block
  const SeenKeys& keys;
  const Attended& seen;
  const Workspace& workspace;

  /// Which rows of vector `v` see a key of the block.
  template <typename V>
  [[nodiscard]] HWY_INLINE typename V::Mask Within(int64_t key, int v) const {
    return V::Within(static_cast<int32_t>(key), keys.first + v * V::kLanes, keys.last + v * V::kLanes);
  }
};

/// Scores, in units of log2 e, with caps and biases.
template <typename V>
inline void ShapeScores(const Work& work, int64_t lane) {
  const AttentionOptions& options = work.call.options;
  const float scale = options.softcap > 0 ? options.scale : options.scale * kLog2E;
  const auto each = [&](int64_t end, auto shape) __attribute__((always_inline)) {
    for (int64_t key = work.keys.begin; key < end; ++key) {
      float* at = work.workspace.scores + key * work.rows.lanes + lane;
      V::Store(at, shape(V::Load(at), key));
    }
  };
  each(
      work.keys.end, [&](auto x, int64_t) __attribute__((always_inline)) {
        const auto score = V::Mul(x, V::Set(scale));
        return options.softcap > 0 ? Cap<V>(score, options.softcap) : score;
      });
  if (options.key_bias.data() != nullptr) {
    const KeyBiases biases(work.call, work.rows, lane);
    each(
        std::min(work.keys.end, work.call.keys() - work.base), [&](auto x,
                                                                   int64_t key) __attribute__((always_inline)) {
          return V::Fma(biases.Of<V>(work.base + key), V::Set(kLog2E), x);
        });
  }
}

/// Calls body(v) for the vectors of a group's lanes.
template <int kVectors, typename Body>
HWY_INLINE void ForEachVector(const Body& body) {
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) body(v);
}

/// Updates the rows' maximum by scores times `scale`, and states the factor of what was summed before.
template <typename V, int kVectors, bool kSeenByAll>
inline void FindMaxima(const Work& work, float scale) {
  using Floats = typename V::Floats;
  const int64_t lanes = work.rows.lanes;
  Floats largest[kVectors][4];
  for (auto& some : largest) std::fill_n(some, 4, V::Set(-__builtin_inff()));
  for (int64_t key = work.keys.begin; key < work.keys.end; key += 4) {
    ForEachVector<kVectors>([&](int v) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < 4; ++i) {
        const Floats larger =
            V::Max(V::Load(work.workspace.scores + (key + i) * lanes + v * V::kLanes), largest[v][i]);
        largest[v][i] = kSeenByAll ? larger : V::Keep(work.Within<V>(key + i, v), larger, largest[v][i]);
      }
    });
  }
  ForEachVector<kVectors>([&](int v) __attribute__((always_inline)) {
    const Floats block_top = V::Max(V::Max(largest[v][0], largest[v][1]), V::Max(largest[v][2], largest[v][3]));
    float* maxima = work.seen.maxima + v * V::kLanes;
    const Floats before = V::Load(maxima);
    const Floats top = V::Max(V::Mul(block_top, V::Set(scale)), before);
    V::Store(maxima, top);
    V::Store(work.workspace.factors + v * V::kLanes, Exp2<V>(V::Sub(before, top), kOfWeights, 1));
  });
}

/// Turns scores times `scale` into bf16 weights, 0 where rows do not see keys, and adds those to the rows' sums. Keys
/// come in order for all lanes, so that the first weights have left the registers when products read them.
template <typename V, int kVectors, bool kSeenByAll>
inline void Soften(const Work& work, float scale) {
  using Floats = typename V::Floats;
  constexpr float kHalf = 0x1p-8f;  // of what a bf16 of 1 counts: added before bits are cut off, it rounds
  const int64_t lanes = work.rows.lanes;
  Floats top[kVectors];
  Floats sums[kVectors][2];
  ForEachVector<kVectors>([&](int v) __attribute__((always_inline)) {
    top[v] = V::Load(work.seen.maxima + v * V::kLanes);
    sums[v][0] = sums[v][1] = V::Zero();
  });
  for (int64_t key = work.keys.begin; key < work.keys.end; key += 4) {
    ForEachVector<kVectors>([&](int v) __attribute__((always_inline)) {
      Floats weight[4];
#pragma GCC unroll 4
      for (int64_t i = 0; i < 4; ++i) {
        const Floats score = V::Load(work.workspace.scores + (key + i) * lanes + v * V::kLanes);
        weight[i] = Exp2<V>(V::Fms(score, V::Set(scale), top[v]), kOfWeights, 1 + kHalf);
        if (!kSeenByAll) weight[i] = V::Keep(work.Within<V>(key + i, v), weight[i], V::Zero());
      }
      uint32_t* to = work.workspace.weights + key / 2 * lanes + v * V::kLanes;
#pragma GCC unroll 2
      for (int64_t i = 0; i < 2; ++i) {
        const auto pairs = V::UpperHalves(weight[2 * i], weight[2 * i + 1]);
        V::StorePairs(to + i * lanes, pairs);
        sums[v][i] = V::AddPairs(sums[v][i], pairs);
      }
    });
  }
  ForEachVector<kVectors>([&](int v) __attribute__((always_inline)) {
    float* sum = work.seen.sums + v * V::kLanes;
    const Floats factor = V::Load(work.workspace.factors + v * V::kLanes);
    V::Store(sum, V::Fma(V::Load(sum), factor, V::Add(sums[v][0], sums[v][1])));
  });
}

// ---- A block of keys -------------------------------------------------------------------------------------------

template <typename Products, typename V, int kVectors, bool kSeenByAll>
inline void Weigh(const Work& work, float scale, const Product& values) {
  FindMaxima<V, kVectors, kSeenByAll>(work, scale);
  Products::Scale(values);
  Soften<V, kVectors, kSeenByAll>(work, scale);
}

template <typename Products, typename V, int kVectors>
inline void AttendLanes(const AttentionCall& call, const RowGroup& rows, const uint32_t* queries, int64_t block,
                        const uint16_t* panel, const Attended& seen, const Workspace& workspace) {
  const SeenKeys keys(call, rows, block);
  if (keys.begin >= keys.end) return;
  const int64_t width = ValueWidth(call.size().value);
  const int64_t key_rows = KeyRows(call.size());
  const int64_t lanes = rows.lanes;
  Products::template Multiply<V, false>({panel + keys.begin * kDepth, kKeyBlock * kDepth, keys.end - keys.begin,
                                         key_rows, queries, workspace.scores + keys.begin * lanes, lanes, nullptr,
                                         RowsAhead(call, call.cache.k, rows.kv_head, block + 1)});
  const bool shaped = call.options.softcap > 0 || call.options.key_bias.data() != nullptr;
  const Work work{call, rows, block * kKeyBlock, keys, seen, workspace};
  if (shaped) {
    for (int64_t lane = 0; lane < lanes; lane += V::kLanes) ShapeScores<V>(work, lane);
  }
  const float scale = shaped ? 1.0f : call.options.scale * kLog2E;
  const uint16_t* values = panel + key_rows * kKeyBlock * kDepth;
  const Product weighted{values + keys.begin * width,
                         width * kDepth,
                         width,
                         (keys.end - keys.begin) / kDepth,
                         workspace.weights + keys.begin / 2 * lanes,
                         seen.output,
                         lanes,
                         workspace.factors,
                         RowsAhead(call, call.cache.v, rows.kv_head, block + 1)};
  if (keys.by_all) {
    Weigh<Products, V, kVectors, true>(work, scale, weighted);
  } else {
    Weigh<Products, V, kVectors, false>(work, scale, weighted);
  }
  Products::template Multiply<V, true>(weighted);
}

void AttendVectors(const AttentionCall& call, const RowGroup& rows, const std::byte* queries, int64_t block,
                   const std::byte* panel, const Attended& seen, std::byte* memory) {
  const auto* q = reinterpret_cast<const uint32_t*>(queries);
  const auto* kv = reinterpret_cast<const uint16_t*>(panel + sizeof(PanelHeader));
  const Workspace workspace(memory);
  if (rows.lanes == 8) return AttendLanes<Vectors, Narrow, 1>(call, rows, q, block, kv, seen, workspace);
  if (rows.lanes == 16) return AttendLanes<Vectors, Wide, 1>(call, rows, q, block, kv, seen, workspace);
  AttendLanes<Vectors, Wide, 2>(call, rows, q, block, kv, seen, workspace);
}

void AttendInTiles(const AttentionCall& call, const RowGroup& rows, const std::byte* queries, int64_t block,
                   const std::byte* panel, const Attended& seen, std::byte* memory) {
  const auto* q = reinterpret_cast<const uint32_t*>(queries);
  const auto* kv = reinterpret_cast<const uint16_t*>(panel + sizeof(PanelHeader));
  const Workspace workspace(memory);
  if (rows.lanes == 16) return AttendLanes<Tiles, Wide, 1>(call, rows, q, block, kv, seen, workspace);
  AttendLanes<Tiles, Wide, 2>(call, rows, q, block, kv, seen, workspace);
}

HWY_POP_ATTRIBUTES

}  // namespace

std::optional<AttentionKernel> Bf16Attention() {
  if (!HasBf16Vectors()) return std::nullopt;
  const bool tiles = HasBf16Tiles();
  return AttentionKernel{tiles ? &Tiles::Configure : nullptr,
                         tiles ? &ReleaseTiles : nullptr,
                         tiles ? 16 : 8,
                         [](const HeadSize& size) {
                           return sizeof(PanelHeader) + static_cast<size_t>(PanelElements(size)) * sizeof(uint16_t);
                         },
                         [](const HeadSize& size) {
                           return static_cast<size_t>(KeyRows(size) * kDepth / 2 * kGroupRows) * sizeof(uint32_t);
                         },
                         [] { return Workspace::kBytes; },
                         tiles ? &PackForTiles : &PackForVectors,
                         &PackQueriesBf16,
                         tiles ? &AttendInTiles : &AttendVectors};
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

std::optional<AttentionKernel> Bf16Attention() { return std::nullopt; }

}  // namespace runahead::cpu

#endif
