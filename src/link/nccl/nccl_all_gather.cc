// The all-gather of NCCL, which runs kernels on the multiprocessors.
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nccl.h>

#include <set>

#include "base/shared_library.h"
#include "link/all_gather.h"
#include "runahead/error.h"
#include "tensor/cuda_check.h"
#include "tensor/cuda_stream.h"

namespace runahead {
namespace {

/// NCCL's functions, from its library, which programs are not linked with so that they start without it.
struct Nccl {
  decltype(&ncclCommInitAll) comm_init_all = nullptr;
  decltype(&ncclCommAbort) comm_abort = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
};

Nccl Open() {
  const SharedLibrary library("libnccl.so.2", "gather", "NCCL");
  Nccl nccl;
  library.Find("ncclCommInitAll", nccl.comm_init_all);
  library.Find("ncclCommAbort", nccl.comm_abort);
  library.Find("ncclGroupStart", nccl.group_start);
  library.Find("ncclGroupEnd", nccl.group_end);
  library.Find("ncclAllGather", nccl.all_gather);
  library.Find("ncclBroadcast", nccl.broadcast);
  library.Find("ncclGetErrorString", nccl.error_string);
  return nccl;
}

const Nccl& Library() {
  static const Nccl nccl = Open();
  return nccl;
}

class NcclAllGather final : public AllGather {
 public:
  explicit NcclAllGather(const std::vector<int>& gpus) : gpus_(gpus), comms_(gpus.size()) {
    const ncclResult_t made = Library().comm_init_all(comms_.data(), static_cast<int>(gpus.size()), gpus.data());
    if (made != ncclSuccess) {
      throw DeviceError(fmt::format("gather: ncclCommInitAll failed: {}", Library().error_string(made)));
    }
  }
  ~NcclAllGather() override {
    for (const ncclComm_t comm : comms_) (void)Library().comm_abort(comm);
  }
  NcclAllGather(const NcclAllGather&) = delete;
  NcclAllGather& operator=(const NcclAllGather&) = delete;

  Status Enqueue(int rank, const KvView& cache, int layer, std::span<const int64_t> cuts, Stream& stream) override {
    const CurrentDevice current(gpus_.at(static_cast<size_t>(rank)));
    const ncclComm_t comm = comms_.at(static_cast<size_t>(rank));
    const cudaStream_t handle = static_cast<CudaStream&>(stream).handle();
    const KvSpan all = cache.Span(layer, 0, cuts.back());
    ncclResult_t result = Library().group_start();
    for (const TensorView& rows : {all.k, all.v}) {
      if (result == ncclSuccess) result = GatherRows(rank, rows, cuts, comm, handle);
    }
    const ncclResult_t ended = Library().group_end();
    if (result == ncclSuccess) result = ended;
    if (result == ncclSuccess) return Status::Ok();
    return Status::Failed(
        fmt::format("layer {}: NCCL's all-gather failed: {}", layer, Library().error_string(result)));
  }

 private:
  /// rows: [cuts.back(), kv_heads, head_dim]
  static ncclResult_t GatherRows(int rank, const TensorView& rows, std::span<const int64_t> cuts, ncclComm_t comm,
                                 cudaStream_t stream) {
    const size_t row_bytes = rows.bytes() / static_cast<size_t>(rows.rows());
    const auto at = [&](size_t i) {
      return static_cast<std::byte*>(rows.data()) + static_cast<size_t>(cuts[i]) * row_bytes;
    };
    const auto bytes = [&](size_t i) { return static_cast<size_t>(cuts[i + 1] - cuts[i]) * row_bytes; };
    const size_t ranks = cuts.size() - 1;
    bool even = true;
    for (size_t i = 0; i < ranks; ++i) even = even && bytes(i) == bytes(0);
    if (even) {
      return Library().all_gather(at(static_cast<size_t>(rank)), at(0), bytes(0), ncclInt8, comm, stream);
    }
    for (size_t root = 0; root < ranks; ++root) {
      const ncclResult_t result =
          Library().broadcast(at(root), at(root), bytes(root), ncclInt8, static_cast<int>(root), comm, stream);
      if (result != ncclSuccess) return result;
    }
    return ncclSuccess;
  }

  std::vector<int> gpus_;  // [ranks]
  std::vector<ncclComm_t> comms_;
};

}  // namespace

bool BuiltWithNccl() { return true; }

std::unique_ptr<AllGather> MakeNcclAllGather(const std::vector<int>& gpus) {
  if (gpus.empty() || std::set<int>(gpus.begin(), gpus.end()).size() != gpus.size()) {
    throw ConfigError("gather: NCCL needs a GPU of its own for each rank");
  }
  return std::make_unique<NcclAllGather>(gpus);
}

}  // namespace runahead
