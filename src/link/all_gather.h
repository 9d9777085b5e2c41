// An all-gather of a cache's rows by a library of collectives, for the baseline that gathers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "kv/kv_cache.h"
#include "tensor/device.h"

namespace runahead {

/// The ranks of a group, each of which calls Enqueue from its own thread, the same layers in the same order. Its end
/// ends everything that is still under way.
class AllGather {
 public:
  virtual ~AllGather() = default;
  /// Enqueues on `stream` that rank `rank`, which has written rows [cuts[rank], cuts[rank + 1]) of `layer`, gets the
  /// rows of all others in between cuts. Does not wait. [ranks + 1] cuts. The rows of `cache` must follow each other.
  virtual Status Enqueue(int rank, const KvView& cache, int layer, std::span<const int64_t> cuts, Stream& stream) = 0;
};

/// Whether this build can use NCCL.
bool BuiltWithNccl();

/// An all-gather by NCCL between these GPUs. Throws ConfigError in a build without NCCL, where its library is
/// missing, and for a GPU that is named twice; DeviceError where it fails.
std::unique_ptr<AllGather> MakeNcclAllGather(const std::vector<int>& gpus);

}  // namespace runahead
