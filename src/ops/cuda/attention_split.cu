// Attention on the plain cores: for one query or a few, with the keys split over blocks (Dao et al. 2023,
// "Flash-Decoding"), and for what the tensor-core kernels do not have (f32, soft caps, key biases, odd head sizes).
#include <algorithm>

#include "ops/cuda/attention_split.cuh"

namespace runahead::cuda {
namespace {

using namespace split;

/// Grid: kv heads x tiles of kItems items x splits of the keys, and perhaps idle blocks; kThreads threads. Heads of
/// at most kLanes * kPerLane elements. Each block reads the keys and values that its items see, once; with several
/// splits the last block of each tile joins their results.
template <typename T, int kLanes, int kItems, bool kVectors>
__global__ void __launch_bounds__(kThreads, kItems == 1   ? 4
                                            : kItems == 4 ? 3
                                                          : 2) AttendSplit(const Job<T> job) {
  ReleaseSuccessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int splits = job.splits;
  const int split = static_cast<int>(blockIdx.x) % splits;
  const int set = static_cast<int>(blockIdx.x) / splits;  // kv head and tile
  const int kv_head = set / job.tiles;
  if (kv_head >= job.kv_heads) return WaitForPredecessors();
  const int column = lane % kLanes * kPerLane;
  const int count = min(max(job.head_dim - column, 0), kPerLane);
  const int first_item = set % job.tiles * kItems;

  ItemSet<T, kItems> items;
  NameItems(job, first_item, kv_head, items);
  int end = 0;
#pragma unroll
  for (int i = 0; i < kItems; ++i) end = max(end, items.own[i] + 1);
  using Keys = Round<T, kLanes, kItems, kVectors>;
  const int low = items.first[0];
  const int begin = job.aligned ? low / Keys::kKeys * Keys::kKeys : low;
  const int per_split = (end - begin + splits - 1) / splits;
  const int split_begin = begin + split * per_split;
  const int split_end = min(split_begin + per_split, end);

  const int64_t offset = static_cast<int64_t>(kv_head) * job.head_dim + column;
  const T* const k = job.k + offset;
  const T* const v = job.v + offset;
  Keys round;
  const bool settled = split_begin < split_end && min(split_begin + round.kKeys, split_end) <= job.settled;
  if (settled) round.Load(job, split_begin, low, split_end, count, k, v);
  WaitForPredecessors();
  LoadQueries<T, kItems, kVectors>(job, first_item, column, count, items);
  State states[kItems];
  Accumulate<T, kLanes, kItems, kVectors>(job, items, low, split_begin, split_end, count, k, v, round, settled,
                                          states);

  const int64_t stride = PartialFloats(job.head_dim);
  const Parts parts{job.partial + int64_t{set} * splits * kItems * stride, kItems * stride, job.counters + set, split,
                    splits};
  FinishItems<T, kLanes, kItems>(job, items, kv_head, first_item, column, count, states, parts);
}

/// How many blocks share the keys of one set of items: enough to fill the GPU, each with keys for a few rounds.
int64_t Splits(int64_t sets, int64_t keys, const SplitScratch& scratch) {
  constexpr int64_t kKeysWorthABlock = 64;
  constexpr int64_t kBlocksPerMultiprocessor = 4;
  const int64_t wanted = kBlocksPerMultiprocessor * scratch.multiprocessors / sets;
  const int64_t worth = (keys + kKeysWorthABlock - 1) / kKeysWorthABlock;
  const int64_t most = scratch.blocks / sets;
  return std::clamp<int64_t>(std::min(wanted, worth), 1, std::max<int64_t>(1, most));
}

template <typename T, int kLanes, bool kVectors>
void LaunchSplit(const LaunchOn& on, Job<T> job, int64_t keys, const SplitScratch& scratch) {
  const int64_t items = static_cast<int64_t>(job.n) * job.group;
  constexpr int kSome = 4;  // the groups of many models
  const int per_block = job.aligned      ? SplitScratch::kItems
                        : items == 1     ? 1
                        : items <= kSome ? kSome
                                         : SplitScratch::kItems;
  const int64_t tiles = (items + per_block - 1) / per_block;
  const int64_t sets = tiles * job.kv_heads;
  const int64_t splits = job.aligned ? 1 : Splits(sets, keys, scratch);
  job.tiles = static_cast<int>(tiles);
  job.splits = static_cast<int>(splits);
  const auto kernel = per_block == 1       ? &AttendSplit<T, kLanes, 1, kVectors>
                      : per_block == kSome ? &AttendSplit<T, kLanes, kSome, kVectors>
                                           : &AttendSplit<T, kLanes, SplitScratch::kItems, kVectors>;
  Launch(on, kernel, dim3(EvenBlocks(sets * splits, on)), dim3(kThreads), 0, job);
}

}  // namespace

void SplitAttention(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                    const AttentionOptions& options, TensorView out, const SplitScratch& scratch, int64_t settled,
                    bool aligned) {
  const int64_t head_dim = q.shape()[2];
  const int64_t kv_heads = keys.k.shape()[1];
  const int64_t end = position + q.rows();
  const int64_t visible = options.window > 0 ? std::min(options.window, end) : end;  // keys that the last query sees
  CHECK_LE(head_dim, int64_t{kMaxHeadDim});
  CHECK_EQ(keys.k.row_stride(), keys.v.row_stride());
  DispatchDevice(q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Job<T> job{};
    job.q = Pointer<T>(q);
    job.q_stride = q.row_stride();
    job.out = Pointer<T>(out);
    job.out_stride = out.row_stride();
    job.k = Pointer<T>(keys.k);
    job.v = Pointer<T>(keys.v);
    job.kv_stride = keys.k.row_stride();
    job.n = static_cast<int>(q.rows());
    job.position = static_cast<int>(position);
    job.settled = static_cast<int>(settled);
    job.aligned = aligned;
    job.kv_heads = static_cast<int>(kv_heads);
    job.group = static_cast<int>(q.shape()[1] / kv_heads);
    job.head_dim = static_cast<int>(head_dim);
    job.scale = options.scale;
    job.window = static_cast<int>(visible < end ? options.window : 0);
    job.softcap = options.softcap;
    job.key_bias = Pointer<float>(options.key_bias);
    job.bias_stride = options.key_bias.row_stride();
    job.sinks = Pointer<float>(options.sinks);
    const bool vectors = head_dim % kPerLane == 0 && Vectorizable(q, q.row_elements()) &&
                         Vectorizable(keys.k, keys.k.row_elements()) && Vectorizable(keys.v, keys.v.row_elements());
    job.partial = scratch.partial;
    job.counters = scratch.counters;
    if (!vectors) return LaunchSplit<T, 32, false>(on, job, visible, scratch);
    if (head_dim <= 64) return LaunchSplit<T, 8, true>(on, job, visible, scratch);
    if (head_dim <= 128) return LaunchSplit<T, 16, true>(on, job, visible, scratch);
    return LaunchSplit<T, 32, true>(on, job, visible, scratch);
  });
}

}  // namespace runahead::cuda
