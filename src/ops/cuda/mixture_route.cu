// Which experts a row goes through, and rows sorted by them. All counts stay on the GPU.
#include <climits>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/mixture.h"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffu;   // lanes of a warp
constexpr int kOwn = kMostExperts / 32;  // experts of a lane, at most
constexpr int kChoosingWarps = 4;
constexpr int kSortingThreads = 1024;

struct Choice {
  const float* scores;
  int64_t stride;
  const float* bias;  // [experts], or null
  Routing routing;
  bool renormalise;
};

/// What a lane offers: of equal values the lowest index is the best. What is no number is the worst.
struct Candidate {
  float value = -INFINITY;
  int index = INT_MAX;
};

__device__ bool Better(float value, int index, const Candidate& than) {
  return value > than.value || (value == than.value && index < than.index);
}

/// The best of all lanes' candidates, in each of them.
__device__ Candidate BestOfWarp(Candidate own) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const float value = __shfl_xor_sync(kAll, own.value, offset);
    const int index = __shfl_xor_sync(kAll, own.index, offset);
    if (Better(value, index, own)) own = {value, index};
  }
  return own;
}

/// The `count` best of ranks[0..per) of all lanes, as a bit for each in `taken`. Lane l has those from per * l on, as
/// many as `own`.
__device__ unsigned TakeBest(const float (&ranks)[kOwn], int own, int first, int count) {
  unsigned taken = 0;
  for (int n = 0; n < count; ++n) {
    Candidate best;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float rank = isnan(ranks[i]) ? -INFINITY : ranks[i];
      if (i < own && (taken >> i & 1) == 0 && Better(rank, first + i, best)) best = {rank, first + i};
    }
    best = BestOfWarp(best);
    if (best.index >= first && best.index < first + own) taken |= 1u << (best.index - first);
  }
  return taken;
}

/// The sum of the `best` largest of values[0, size).
__device__ float SumOfBest(const float* values, int size, int best) {
  float sum = 0;
  Candidate last{INFINITY, -1};
  for (int n = 0; n < best; ++n) {
    Candidate next;
    for (int i = 0; i < size; ++i) {
      const bool left = values[i] < last.value || (values[i] == last.value && i > last.index);
      if (left && Better(values[i], i, next)) next = {values[i], i};
    }
    sum += next.value;
    last = next;
  }
  return sum;
}

/// Takes what is in no chosen group out of the choice. `room`: kMostExperts floats of the warp.
__device__ void KeepGroups(const Routing& routing, float (&ranks)[kOwn], int own, int first, int experts,
                           float* room) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto groups = static_cast<int>(routing.groups);
  const int size = experts / groups;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    if (i < own) room[first + i] = ranks[i];
  }
  __syncwarp();
  float of_group[kOwn] = {};
  if (lane < groups) of_group[0] = SumOfBest(room + lane * size, size, static_cast<int>(routing.group_best));
  const unsigned taken = TakeBest(of_group, lane < groups ? 1 : 0, lane, static_cast<int>(routing.chosen_groups));
  const unsigned chosen = __ballot_sync(kAll, taken != 0);
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    if (i < own && (chosen >> ((first + i) / size) & 1) == 0) ranks[i] = -INFINITY;
  }
}

/// A warp per row; lane l scores the experts from ceil(experts / 32) * l on. Reads the scores once.
__global__ void __launch_bounds__(32 * kChoosingWarps) Choose(const Choice choice, const RoutedRows routed) {
  __shared__ float rooms[kChoosingWarps][kMostExperts];
  ReleaseSuccessors();
  WaitForPredecessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.x) * kChoosingWarps + warp;
  if (row >= routed.rows) return;
  const int per = (routed.experts + 31) / 32;
  const int first = per * lane;
  const int own = max(0, min(per, routed.experts - first));
  float shares[kOwn];
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    shares[i] = i < own ? choice.scores[row * choice.stride + first + i] : -INFINITY;
    largest = fmaxf(largest, shares[i]);
  }
  largest = WarpMax(largest);
  float total = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    shares[i] = choice.routing.logistic ? 1 / (1 + expf(-shares[i])) : expf(shares[i] - largest);
    if (i < own) total += shares[i];
  }
  total = choice.routing.logistic ? 1 : WarpSum(total);
  float ranks[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    shares[i] /= total;
    ranks[i] = shares[i] + (i < own && choice.bias != nullptr ? choice.bias[first + i] : 0);
  }
  if (choice.routing.chosen_groups < choice.routing.groups) {
    KeepGroups(choice.routing, ranks, own, first, routed.experts, rooms[warp]);
  }
  const unsigned taken = TakeBest(ranks, own, first, routed.chosen);

  constexpr float kLeastTotal = 1e-20f;  // what DeepSeek-V3 adds, so that logistic shares of nothing stay 0
  float weight = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    if ((taken >> i & 1) != 0) weight += shares[i];
  }
  weight = WarpSum(weight) + (choice.routing.logistic ? kLeastTotal : 0);
  const float divisor = choice.renormalise ? weight : 1;
  const int count = __popc(taken);
  int at = count;  // becomes the taken experts of this lane and those before
  for (int offset = 1; offset < 32; offset *= 2) {
    const int before = __shfl_up_sync(kAll, at, offset);
    if (lane >= offset) at += before;
  }
  at += row * routed.chosen - count;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    if ((taken >> i & 1) == 0) continue;
    routed.expert_of[at] = first + i;
    routed.weight_of[at] = shares[i] / divisor * choice.routing.scale;
    ++at;
  }
}

/// The sum of the values of the warps before this one, in `before`, and of all, for one value of each warp.
__device__ int SumOfWarps(int value, int& before, int* scratch) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x % 32 == 0) scratch[warp] = value;
  __syncthreads();
  int all = 0;
  before = 0;
  for (int w = 0; w < kSortingThreads / 32; ++w) {
    all += scratch[w];
    if (w < warp) before += scratch[w];
  }
  __syncthreads();
  return all;
}

/// A block per expert, which reads all choices twice: counts them, and gives its own the slots that follow those of
/// the experts before, in the order of their rows.
__global__ void __launch_bounds__(kSortingThreads) Sort(const RoutedRows routed) {
  __shared__ int counts[kMostExperts];
  __shared__ int scratch[kSortingThreads / 32];
  ReleaseSuccessors();
  WaitForPredecessors();
  const int expert = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int slots = routed.rows * routed.chosen;
  for (int e = thread; e < routed.experts; e += kSortingThreads) counts[e] = 0;
  __syncthreads();
  for (int i = thread; i < slots; i += kSortingThreads) atomicAdd(&counts[routed.expert_of[i]], 1);
  __syncthreads();
  int slot = 0;  // first one of this expert
  int tile = 0;
  for (int e = 0; e < expert; ++e) {
    slot += counts[e];
    tile += (counts[e] + routed.tile_slots - 1) / routed.tile_slots;
  }
  const int own = counts[expert];
  const int tiles = (own + routed.tile_slots - 1) / routed.tile_slots;
  for (int i = thread; i < tiles; i += kSortingThreads) {
    const int first = i * routed.tile_slots;
    routed.tiles[tile + i] = {expert, slot + first, min(routed.tile_slots, own - first)};
  }
  if (expert == routed.experts - 1 && thread == 0) *routed.tile_count = tile + tiles;

  for (int begin = 0; begin < slots; begin += kSortingThreads) {
    const int i = begin + thread;
    const bool mine = i < slots && routed.expert_of[i] == expert;
    const unsigned of_warp = __ballot_sync(kAll, mine);
    int before;
    const int all = SumOfWarps(__popc(of_warp), before, scratch);
    if (mine) {
      const int at = slot + before + __popc(of_warp & ((1u << thread % 32) - 1));
      routed.slot_of[i] = at;
      routed.row_of[at] = i / routed.chosen;
    }
    slot += all;
  }
}

/// What CombineExperts adds up.
struct Combination {
  int64_t results_stride;
  int64_t sum_stride;
  int features;
  bool shared;
  const float* gates;  // or null
  int64_t gates_stride;
};

constexpr int kCombiningThreads = 256;

/// A block per row. Reads each result once.
template <typename T, int N>
__global__ void __launch_bounds__(kCombiningThreads)
    Combine(const T* results, T* sum, const Combination combination, const RoutedRows routed) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int64_t row = blockIdx.x;
  const int32_t* const slot_of = routed.slot_of + row * routed.chosen;
  const float* const weight_of = routed.weight_of + row * routed.chosen;
  float shared = 0;
  if (combination.shared) {
    shared = combination.gates == nullptr ? 1 : 1 / (1 + expf(-combination.gates[row * combination.gates_stride]));
  }
  for (int i = N * static_cast<int>(threadIdx.x); i < combination.features; i += N * kCombiningThreads) {
    float totals[N] = {};
    const auto add = [&](int64_t slot, float weight) {
      const Vector<T, N> result = Load<N>(results + slot * combination.results_stride + i);
#pragma unroll
      for (int k = 0; k < N; ++k) totals[k] = fmaf(weight, ToFloat(result.values[k]), totals[k]);
    };
    for (int j = 0; j < routed.chosen; ++j) add(slot_of[j], weight_of[j]);
    if (combination.shared) add(int64_t{routed.rows} * routed.chosen + row, shared);
    T* const to = sum + row * combination.sum_stride + i;
    Vector<T, N> total = Load<N>(to);
#pragma unroll
    for (int k = 0; k < N; ++k) total.values[k] = FromFloat<T>(ToFloat(total.values[k]) + totals[k]);
    Store(to, total);
  }
}

}  // namespace

void ChooseExperts(const LaunchOn& on, TensorView scores, const Mixture& mixture, const RoutedRows& routed) {
  const Choice choice{Pointer<float>(scores), scores.row_stride(), Pointer<float>(mixture.choice_bias),
                      mixture.routing, mixture.renormalise};
  const auto blocks = static_cast<unsigned>((routed.rows + kChoosingWarps - 1) / kChoosingWarps);
  Launch(on, &Choose, dim3(blocks), dim3(32 * kChoosingWarps), 0, choice, routed);
}

void SortByExpert(const LaunchOn& on, const RoutedRows& routed) {
  Launch(on, &Sort, dim3(static_cast<unsigned>(routed.experts)), dim3(kSortingThreads), 0, routed);
}

void CombineExperts(const LaunchOn& on, TensorView results, const RoutedRows& routed, bool shared, TensorView gates,
                    TensorView sum) {
  const auto features = static_cast<int>(sum.row_elements());
  const Combination combination{results.row_stride(),
                                sum.row_stride(),
                                features,
                                shared,
                                Pointer<float>(gates),
                                gates.data() == nullptr ? 0 : gates.row_stride()};
  const bool vectors = Vectorizable(sum, features) && Vectorizable(results, features);
  DispatchDevice(sum.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = vectors ? &Combine<T, kPerVector<T>> : &Combine<T, 1>;
    Launch(on, kernel, dim3(static_cast<unsigned>(routed.rows)), dim3(kCombiningThreads), 0, Pointer<T>(results),
           Pointer<T>(sum), combination, routed);
  });
}

}  // namespace runahead::cuda
