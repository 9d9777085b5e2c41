// How kernels start: overlapping the end of the one before where the GPU can (programmatic dependent launch).
#pragma once

#include <cuda_runtime.h>

#include "ops/cuda/kernels.h"

namespace runahead::cuda {

/// Waits for the kernels launched before this one; nothing they wrote may be read, and nothing they read written,
/// before. Every kernel of ours calls it once in each thread: a kernel has then ended only after all before it have,
/// however early the ones behind it start.
__device__ inline void WaitForPredecessors() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

/// Lets the next kernel's blocks become resident as soon as all of this one's are. They wait in WaitForPredecessors.
/// Called before this one's own wait, so that weights are on their way while the kernels between two products run.
__device__ inline void ReleaseSuccessors() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/// `blocks` and as many idle ones as give every multiprocessor the same number. A kernel's blocks become resident
/// wherever those before it leave room: behind a kernel that fills some multiprocessors less than others, two blocks
/// of a product would meet on one, take longer, and leave the same gaps to the product behind them, and so on.
inline unsigned EvenBlocks(int64_t blocks, const LaunchOn& on) {
  const int64_t each = (blocks + on.multiprocessors - 1) / on.multiprocessors;
  return static_cast<unsigned>(each * on.multiprocessors);
}

/// Enqueues `kernel`. Throws DeviceError when the launch is refused.
template <typename... Parameters, typename... Arguments>
void Launch(const LaunchOn& on, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            Arguments... arguments) {
  constexpr size_t kSharedBytesWithoutAsking = 48 * 1024;
  if (shared_bytes > kSharedBytesWithoutAsking) {
    CheckLaunch(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  }
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  // A multiprocessor is not shared by kernels that divide its first cache differently: 132 of 228 KB of shared memory
  // for all of them, what two matmuls at a time use. The rest holds the reads that are under way.
  attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[1].val.sharedMemCarveout = 57;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = on.stream;
  config.attrs = attributes;
  config.numAttrs = on.overlap ? 2 : 0;
  CheckLaunch(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace runahead::cuda
