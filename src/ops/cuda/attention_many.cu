// Attention of one query each of many sequences in one launch, whose keys and values lie on pages in any order. Each
// sequence's keys are split over blocks, and the last block of a head joins the parts (Dao et al. 2023,
// "Flash-Decoding"; pages: Kwon et al. 2023).
#include <algorithm>

#include "ops/cuda/attention_many.h"
#include "ops/cuda/attention_split.cuh"
#include "ops/cuda/attention_tiles.cuh"

namespace runahead::cuda {
namespace {

constexpr int kPage = static_cast<int>(kPageRows);

/// A sequence's tables as a block reads them.
struct Where {
  ManyUnit unit;
  const int32_t* rows;  // row of the first position of each page
};

__device__ Where Locate(const ManyTables& tables, int index) {
  Where where;
  const int4* const words = reinterpret_cast<const int4*>(tables.units + index);
  reinterpret_cast<int4*>(&where.unit)[0] = words[0];
  reinterpret_cast<int4*>(&where.unit)[1] = words[1];
  where.rows = tables.rows + where.unit.pages;
  return where;
}

/// Grid: tiles of kItems heads of a kv head's group x units; split::kThreads threads. Each block reads the keys and
/// values of its unit, of one kv head, once. job: what all sequences share.
template <typename T, int kLanes, int kItems, bool kVectors>
__global__ void __launch_bounds__(split::kThreads, kItems == 1   ? 4
                                                   : kItems == 4 ? 3
                                                                 : 2)
    AttendManySplit(const split::Job<T> shared, const ManyTables tables) {
  using Keys = split::Round<T, kLanes, kItems, kVectors>;
  ReleaseSuccessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int set = static_cast<int>(blockIdx.x);
  const Where where = Locate(tables, static_cast<int>(blockIdx.y));
  const ManyUnit& unit = where.unit;
  split::Job<T> job = shared;
  job.position = unit.position;
  job.q += int64_t{unit.row} * job.q_stride;
  job.out += int64_t{unit.row} * job.out_stride;
  const int kv_head = set / job.tiles;
  const int column = lane % kLanes * split::kPerLane;
  const int count = min(max(job.head_dim - column, 0), split::kPerLane);
  const int first_item = set % job.tiles * kItems;

  split::ItemSet<T, kItems> items;
  split::NameItems(job, first_item, kv_head, items);
  const int64_t offset = static_cast<int64_t>(kv_head) * job.head_dim + column;
  /// Elements between where a key would lie behind its sequence's first one and where it lies.
  const auto shift = [&](int page) {
    return offset + (int64_t{where.rows[page]} - int64_t{page} * kPage) * job.kv_stride;
  };
  int page = unit.begin / kPage;
  int64_t moved = shift(page);
  Keys round;
  const int first_end = min(min(unit.begin + Keys::kKeys, (page + 1) * kPage), unit.end);
  bool loaded = first_end <= unit.settled;
  if (loaded) {
    round.Load(job, unit.begin, unit.begin, min((page + 1) * kPage, unit.end), count, job.k + moved, job.v + moved);
  }
  WaitForPredecessors();
  split::LoadQueries<T, kItems, kVectors>(job, first_item, column, count, items);
  split::State states[kItems];
  for (int begin = unit.begin; begin < unit.end; ++page) {
    const int end = min((page + 1) * kPage, unit.end);
    const int64_t next = end < unit.end ? shift(page + 1) : 0;
    split::Accumulate<T, kLanes, kItems, kVectors>(job, items, begin, begin, end, count, job.k + moved, job.v + moved,
                                                   round, loaded, states);
    loaded = false;
    begin = end;
    moved = next;
  }
  const int64_t item_floats = kItems * split::PartialFloats(job.head_dim);
  const int64_t sets = gridDim.x;
  const split::Parts parts{tables.partial + (unit.first * sets + set) * item_floats, sets * item_floats,
                           tables.counters + unit.first * sets + set, static_cast<int>(blockIdx.y) - unit.first,
                           unit.splits};
  split::FinishItems<T, kLanes, kItems>(job, items, kv_head, first_item, column, count, states, parts);
}

template <typename T>
struct TilesJob {
  const T* q;  // [rows, q_heads, head_dim]
  int64_t q_stride;
  T* out;  // [rows, q_heads, head_dim]
  int64_t out_stride;
  const T* k;  // [any, kv_heads, head_dim]
  const T* v;
  int64_t kv_stride;
  int sets;            // sets of query heads in a kv head's group
  int group;           // q heads that share a kv head
  float scale;         // scale of the scores, base 2
  const float* sinks;  // [q_heads], or null
};

/// The results of the splits of a block's heads, joined and written. partials: of split 0, `step` floats apart;
/// sinks: of the first head, or null.
template <typename T, int kHeadDim>
__device__ void JoinParts(const float* partials, int64_t step, int splits, int heads, const float* sinks, T* out) {
  constexpr int kQuads = kHeadDim / 4;
  for (int i = static_cast<int>(threadIdx.x); i < heads * kQuads; i += tiles::kThreads) {
    const float* const head = partials + i / kQuads * tiles::kResultFloats<kHeadDim>;
    const int element = i % kQuads * 4;
    float largest = -INFINITY;
    float sum = 0;
    float4 values = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (int p = 0; p < splits; ++p) {
      const float2 own = __ldcg(reinterpret_cast<const float2*>(head + p * step + kHeadDim));
      const float4 part = __ldcg(reinterpret_cast<const float4*>(head + p * step + element));
      const float top = fmaxf(largest, own.x);
      const float keep = Rescale(largest, top);
      const float factor = Rescale(own.x, top);
      largest = top;
      sum = sum * keep + own.y * factor;
      values.x = values.x * keep + part.x * factor;
      values.y = values.y * keep + part.y * factor;
      values.z = values.z * keep + part.z * factor;
      values.w = values.w * keep + part.w * factor;
    }
    tiles::StoreFour(out + i / kQuads * kHeadDim + element, values,
                     1.0f / WithSink(sum, SinkOf(sinks, i / kQuads), largest));
  }
}

/// Grid: sets of 8 kTiles heads of each kv head's group x units; tiles::kThreads threads. Each block reads the keys
/// and values of its unit, of one kv head, once. Everything is aligned to 16 bytes. Launch bounds: as AttendDecode.
template <typename T, int kHeadDim, int kTiles>
__global__ void __launch_bounds__(tiles::kThreads, kTiles* kHeadDim <= 192 ? 3 : 2)
    AttendManyTiles(const TilesJob<T> job, const ManyTables tables) {
  using tiles::kRoundKeys;
  constexpr int kHeads = tiles::kTileHeads * kTiles;
  constexpr int kStep = kHeads * tiles::kResultFloats<kHeadDim>;
  constexpr int kQuads = kHeadDim / 4;
  __shared__ __align__(16) float memory[tiles::kWarps * kStep];
  __shared__ bool last;
  ReleaseSuccessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int set = static_cast<int>(blockIdx.x);  // index among the sets of all kv heads
  const Where where = Locate(tables, static_cast<int>(blockIdx.y));
  const ManyUnit& unit = where.unit;
  const int kv_head = set / job.sets;
  const int head_in_group = set % job.sets * kHeads;
  const int first_head = kv_head * job.group + head_in_group;
  const int heads = min(job.group - head_in_group, kHeads);
  const int pages = (unit.end + kPage - 1) / kPage;  // pages of the sequence up to the unit's end
  /// Elements between where a key would lie behind its sequence's first one and where it lies; of any key of a round.
  const auto shift = [&](int key) {
    const int page = min(key / kPage, pages - 1);
    return kv_head * int64_t{kHeadDim} + (int64_t{where.rows[page]} - int64_t{page} * kPage) * job.kv_stride;
  };
  int first = unit.begin / kRoundKeys * kRoundKeys + warp * tiles::kTileKeys;
  int64_t moved = shift(first);
  tiles::KeyTile<kHeadDim> keys;
  tiles::ValueTile<kHeadDim> values;
  const bool settled = min(unit.begin / kRoundKeys * kRoundKeys + kRoundKeys, unit.end) <= unit.settled;
  if (settled) keys.Load(job.k + moved, job.kv_stride, first, unit.end, g, t, unit.begin);
  WaitForPredecessors();
  if (!settled) keys.Load(job.k + moved, job.kv_stride, first, unit.end, g, t, unit.begin);
  uint4 q[kTiles][kHeadDim / 32];
  tiles::LoadHeads<T, kHeadDim, kTiles>(job.q + unit.row * job.q_stride + first_head * kHeadDim, heads, g, t, q);
  tiles::State<T, kHeadDim, kTiles> state;
  state.Clear();
  int64_t next = shift(first + kRoundKeys);
  for (; first < unit.end; first += kRoundKeys) {
    values.Load(job.v + moved, job.kv_stride, first, unit.end, g, t, unit.begin);
    float scores[kTiles][4];
    tiles::ScoreTile<T, kHeadDim, kTiles>(keys, q, first + g, unit.end, job.scale, scores, unit.begin);
    keys.Load(job.k + next, job.kv_stride, first + kRoundKeys, unit.end, g, t, unit.begin);
    moved = next;
    next = shift(first + 2 * kRoundKeys);
    unsigned weights[kTiles][2];
    state.Weigh(scores, weights);
    state.Add(values, weights);
  }

  tiles::LeaveState<T, kHeadDim, kTiles>(state, g, t, memory + warp * kStep);
  __syncthreads();
  const int64_t sets = gridDim.x;
  float* const partials = tables.partial + (unit.first * sets + set) * kStep;
  float* const partial = partials + (static_cast<int64_t>(blockIdx.y) - unit.first) * sets * kStep;
  T* const out = job.out + unit.row * job.out_stride + static_cast<int64_t>(first_head) * kHeadDim;
  const float* const sinks = SinkOf(job.sinks, first_head);
  for (int i = static_cast<int>(threadIdx.x); i < heads * kQuads; i += tiles::kThreads) {
    const int at = i / kQuads * tiles::kResultFloats<kHeadDim>;
    const int element = i % kQuads * 4;
    float largest;
    float sum;
    const float4 joined = tiles::JoinWarps<kHeadDim>(memory + at, kStep, element, largest, sum);
    if (unit.splits == 1) {
      tiles::StoreFour(out + i / kQuads * kHeadDim + element, joined,
                       1.0f / WithSink(sum, SinkOf(sinks, i / kQuads), largest));
      continue;
    }
    *reinterpret_cast<float4*>(partial + at + element) = joined;
    if (element == 0) *reinterpret_cast<float2*>(partial + at + kHeadDim) = make_float2(largest, sum);
  }
  if (unit.splits == 1) return;
  __threadfence();
  __syncthreads();
  unsigned* const counter = tables.counters + unit.first * sets + set;
  if (threadIdx.x == 0) last = atomicAdd(counter, 1u) + 1 == static_cast<unsigned>(unit.splits);
  __syncthreads();
  if (!last) return;
  __threadfence();
  JoinParts<T, kHeadDim>(partials, sets * kStep, unit.splits, heads, sinks, out);
  if (threadIdx.x == 0) *counter = 0;  // the next launch expects 0
}

template <typename T, int kHeadDim, int kTiles>
void LaunchTiles(const LaunchOn& on, const TilesJob<T>& job, const ManyTables& tables, const ManyShape& shape) {
  Launch(on, &AttendManyTiles<T, kHeadDim, kTiles>,
         dim3(static_cast<unsigned>(shape.sets), static_cast<unsigned>(tables.count)), dim3(tiles::kThreads), 0, job,
         tables);
}

template <typename T>
void LaunchTilesFor(const LaunchOn& on, const TilesJob<T>& job, const ManyTables& tables, const ManyShape& shape,
                    int64_t head_dim) {
  const bool narrow = shape.heads_per_set == tiles::kTileHeads;
  if (head_dim == 64) {
    return narrow ? LaunchTiles<T, 64, 1>(on, job, tables, shape) : LaunchTiles<T, 64, 3>(on, job, tables, shape);
  }
  if (head_dim == 128) {
    return narrow ? LaunchTiles<T, 128, 1>(on, job, tables, shape) : LaunchTiles<T, 128, 2>(on, job, tables, shape);
  }
  LaunchTiles<T, 256, 1>(on, job, tables, shape);
}

template <typename T, int kLanes, bool kVectors>
void LaunchSplit(const LaunchOn& on, const split::Job<T>& job, const ManyTables& tables, const ManyShape& shape) {
  constexpr int kSome = 4;
  const auto kernel = shape.heads_per_set == 1       ? &AttendManySplit<T, kLanes, 1, kVectors>
                      : shape.heads_per_set == kSome ? &AttendManySplit<T, kLanes, kSome, kVectors>
                                                     : &AttendManySplit<T, kLanes, SplitScratch::kItems, kVectors>;
  Launch(on, kernel, dim3(static_cast<unsigned>(shape.sets), static_cast<unsigned>(tables.count)),
         dim3(split::kThreads), 0, job, tables);
}

bool VectorsFor(const ManyQueries& many) {
  return Vectorizable(many.q, many.q.row_elements()) && Vectorizable(many.out, many.out.row_elements()) &&
         Vectorizable(many.k, many.k.row_elements()) && Vectorizable(many.v, many.v.row_elements());
}

}  // namespace

ManyShape ShapeOfMany(const ManyQueries& many) {
  const int64_t head_dim = many.q.shape()[2];
  const int64_t kv_heads = many.k.shape()[1];
  const int64_t group = many.q.shape()[1] / kv_heads;
  ManyShape shape;
  shape.on_tiles = group > 1 && many.q.dtype() != DType::kF32 && many.options.softcap == 0 &&
                   many.options.key_bias.data() == nullptr &&
                   (head_dim == 64 || head_dim == 128 || head_dim == 256) && VectorsFor(many);
  if (shape.on_tiles) {
    const int wide = head_dim == 64 ? 3 : head_dim == 128 ? 2 : 1;
    const int sets_of_eight = group <= tiles::kTileHeads ? 1 : wide;
    shape.heads_per_set = tiles::kTileHeads * sets_of_eight;
    shape.blocks_per_multiprocessor = sets_of_eight * head_dim <= 192 ? 3 : 2;
  } else {
    constexpr int kSome = 4;
    shape.heads_per_set = group == 1 ? 1 : group <= kSome ? kSome : SplitScratch::kItems;
    shape.blocks_per_multiprocessor = group == 1 ? 4 : group <= kSome ? 3 : 2;
  }
  shape.part_floats = shape.heads_per_set * (head_dim + 4);  // tiles::kResultFloats, split::PartialFloats
  shape.sets = kv_heads * ((group + shape.heads_per_set - 1) / shape.heads_per_set);
  return shape;
}

void AttendMany(const LaunchOn& on, const ManyQueries& many, const ManyShape& shape, const ManyTables& tables) {
  const int64_t head_dim = many.q.shape()[2];
  const int64_t kv_heads = many.k.shape()[1];
  const auto group = static_cast<int>(many.q.shape()[1] / kv_heads);
  CHECK_LE(head_dim, int64_t{SplitScratch::kMaxHeadDim});
  CHECK_EQ(many.k.row_stride(), many.v.row_stride());
  DispatchDevice(many.q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (!std::is_same_v<T, float>) {
      if (shape.on_tiles) {
        const TilesJob<T> job{Pointer<T>(many.q),
                              many.q.row_stride(),
                              Pointer<T>(many.out),
                              many.out.row_stride(),
                              Pointer<T>(many.k),
                              Pointer<T>(many.v),
                              many.k.row_stride(),
                              static_cast<int>(shape.sets / kv_heads),
                              group,
                              many.options.scale * kLog2E,
                              Pointer<float>(many.options.sinks)};
        return LaunchTilesFor<T>(on, job, tables, shape, head_dim);
      }
    }
    split::Job<T> job{};
    job.q = Pointer<T>(many.q);
    job.q_stride = many.q.row_stride();
    job.out = Pointer<T>(many.out);
    job.out_stride = many.out.row_stride();
    job.k = Pointer<T>(many.k);
    job.v = Pointer<T>(many.v);
    job.kv_stride = many.k.row_stride();
    job.n = 1;
    job.kv_heads = static_cast<int>(kv_heads);
    job.group = group;
    job.tiles = static_cast<int>(shape.sets / kv_heads);
    job.head_dim = static_cast<int>(head_dim);
    job.scale = many.options.scale;
    job.window = static_cast<int>(many.options.window);
    job.softcap = many.options.softcap;
    job.key_bias = Pointer<float>(many.options.key_bias);
    job.bias_stride = many.options.key_bias.row_stride();
    job.sinks = Pointer<float>(many.options.sinks);
    if (head_dim % split::kPerLane != 0 || !VectorsFor(many)) {
      return LaunchSplit<T, 32, false>(on, job, tables, shape);
    }
    if (head_dim <= 64) return LaunchSplit<T, 8, true>(on, job, tables, shape);
    if (head_dim <= 128) return LaunchSplit<T, 16, true>(on, job, tables, shape);
    return LaunchSplit<T, 32, true>(on, job, tables, shape);
  });
}

}  // namespace runahead::cuda
