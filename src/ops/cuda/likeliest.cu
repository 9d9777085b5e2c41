// The likeliest token, found where the logits are.
#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 16;  // logits
constexpr unsigned long long kNotANumber = ~0ULL;

/// A logit and its index as one number: the larger logit is the larger number, of equal logits the one of the lower
/// index, and a NaN is larger than all.
__device__ unsigned long long Rank(float logit, int index) {
  if (isnan(logit)) return kNotANumber;
  const unsigned bits = __float_as_uint(logit + 0.0f);  // -0 equals 0
  const unsigned ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(ordered) << 32 | (0xffffffffu - static_cast<unsigned>(index));
}

/// The largest of the block's numbers, in thread 0. scratch: a number for each warp.
__device__ unsigned long long BlockMax(unsigned long long best, unsigned long long* scratch) {
  for (int offset = 16; offset > 0; offset /= 2) best = max(best, __shfl_xor_sync(0xffffffffu, best, offset));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / 32; ++warp) best = max(best, scratch[warp]);
  }
  __syncthreads();
  return best;
}

/// Grid: blocks that share a row, at most LikeliestScratch::kMostBlocks, x rows; kThreads threads. Reads each logit
/// once. The last block of a row writes its token, to the device's memory and to the host's.
__global__ void __launch_bounds__(kThreads)
    FindLikeliest(const float* all, int64_t stride, int count, LikeliestScratch* scratches, int32_t* host_tokens) {
  __shared__ unsigned long long maxima[kThreads / 32];
  __shared__ bool last;
  const float* const logits = all + blockIdx.y * stride;
  LikeliestScratch* const scratch = scratches + blockIdx.y;
  ReleaseSuccessors();
  WaitForPredecessors();
  unsigned long long best = 0;
  const int step = static_cast<int>(gridDim.x) * kThreads;
#pragma unroll 4
  for (int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x); i < count; i += step) {
    best = max(best, Rank(logits[i], i));
  }
  best = BlockMax(best, maxima);
  if (threadIdx.x == 0) {
    scratch->best[blockIdx.x] = best;
    __threadfence();
    last = atomicAdd(&scratch->done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  best = 0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += kThreads) best = max(best, __ldcg(&scratch->best[i]));
  best = BlockMax(best, maxima);
  if (threadIdx.x != 0) return;
  const auto token = static_cast<int32_t>(0xffffffffu - static_cast<unsigned>(best));
  scratch->token = best == kNotANumber ? -1 : token;
  host_tokens[blockIdx.y] = scratch->token;
  __threadfence_system();
  scratch->done = 0;  // the next launch expects 0
}

}  // namespace

void Likeliest(const LaunchOn& on, TensorView logits, LikeliestScratch* scratch, int32_t* host_tokens) {
  const auto count = static_cast<int>(logits.row_elements());
  constexpr int kPerBlock = kThreads * kPerThread;
  const int blocks = std::clamp((count + kPerBlock - 1) / kPerBlock, 1, LikeliestScratch::kMostBlocks);
  Launch(on, &FindLikeliest, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(logits.rows())),
         dim3(kThreads), 0, Pointer<float>(logits), logits.row_stride(), count, scratch, host_tokens);
}

}  // namespace runahead::cuda
