// Rows of a GPU on their way between processes: by UCX from GPU to GPU where it can, else through page-locked memory,
// copied beside what the GPU computes.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "link/ucx/ucx_lane.h"
#include "runahead/error.h"
#include "tensor/cuda_check.h"
#include "tensor/cuda_events.h"
#include "tensor/cuda_stream.h"

namespace runahead {
namespace {

/// Page-locked host memory in blocks of powers of two, which are not given back while the pool lives. Thread-safe.
class PageLockedPool : public std::enable_shared_from_this<PageLockedPool> {
 public:
  PageLockedPool() = default;
  ~PageLockedPool() {
    for (const auto& [bytes, blocks] : idle_) {
      for (std::byte* const block : blocks) (void)cudaFreeHost(block);
    }
  }
  PageLockedPool(const PageLockedPool&) = delete;
  PageLockedPool& operator=(const PageLockedPool&) = delete;

  /// Whoever lets go of it last returns it.
  std::shared_ptr<std::byte> Take(size_t bytes) {
    const size_t size = std::bit_ceil(std::max(bytes, kLeastBytes));
    return {TakeBlock(size), [pool = shared_from_this(), size](std::byte* block) { pool->Return(block, size); }};
  }

 private:
  static constexpr size_t kLeastBytes = 4096;

  std::byte* TakeBlock(size_t size) {
    {
      const std::lock_guard lock(mutex_);
      std::vector<std::byte*>& blocks = idle_[size];
      if (!blocks.empty()) {
        std::byte* const block = blocks.back();
        blocks.pop_back();
        return block;
      }
    }
    void* block = nullptr;
    const cudaError_t made = cudaHostAlloc(&block, size, cudaHostAllocPortable);
    if (made != cudaSuccess) {
      (void)cudaGetLastError();
      throw ConfigError(
          fmt::format("links: no room for {} bytes of page-locked host memory: {}", size, cudaGetErrorString(made)));
    }
    return static_cast<std::byte*>(block);
  }

  void Return(std::byte* block, size_t size) {
    const std::lock_guard lock(mutex_);
    idle_[size].push_back(block);
  }

  std::mutex mutex_;
  std::map<size_t, std::vector<std::byte*>> idle_;  // by bytes, guarded by mutex_
};

class CudaLanding final : public UcxLanding {
 public:
  CudaLanding(std::shared_ptr<EventPool> pool, cudaStream_t stream) : copied_(std::move(pool), stream) {}

  Status Wait(Deadline deadline) override { return copied_.Wait(deadline); }
  Status OrderBefore(Stream& stream, Deadline /*deadline*/) override {
    copied_.OrderBefore(static_cast<CudaStream&>(stream).handle());
    return Status::Ok();
  }

 private:
  PooledEvent copied_;
};

/// Which GPU memory is on.
int GpuOf(Device& device) {
  const Buffer probe = device.Allocate(1);
  cudaPointerAttributes attributes{};
  CheckCuda(cudaPointerGetAttributes(&attributes, probe.data()), 0, "cudaPointerGetAttributes");
  return attributes.device;
}

class CudaLane final : public UcxLane {
 public:
  CudaLane(Device& device, bool reached)
      : gpu_(GpuOf(device)),
        reached_(reached),
        events_(std::make_shared<EventPool>(gpu_, EventTimes::kNo)),
        down_(CudaStream::ForCopies(gpu_)),
        up_(CudaStream::ForCopies(gpu_)) {}
  ~CudaLane() override { CudaLane::Settle(); }
  CudaLane(const CudaLane&) = delete;
  CudaLane& operator=(const CudaLane&) = delete;

  bool ReachedByUcx(const KvSpan& span) const override {
    const auto moves = [](size_t bytes) { return bytes == 0 || bytes >= kUcxZeroCopyBytes; };
    return reached_ && moves(span.k.bytes()) && moves(span.v.bytes());
  }

  void Enter() override {
    if (reached_) CheckCuda(cudaSetDevice(gpu_), gpu_, "cudaSetDevice");  // UCX copies for the thread's current GPU
  }

  std::shared_ptr<std::byte> Take(size_t bytes) override {
    const CurrentDevice current(gpu_);
    return pool_->Take(bytes);
  }

  void Down(const KvSpan& span, std::shared_ptr<std::byte> to, Stream& after, std::function<void()> then) override {
    const std::lock_guard lock(enqueuing_down_);
    PooledEvent(events_, static_cast<CudaStream&>(after).handle()).OrderBefore(down_->handle());
    if (to != nullptr) {
      Copy(to.get(), span.k.data(), span.k.bytes(), cudaMemcpyDeviceToHost, *down_);
      Copy(to.get() + span.k.bytes(), span.v.data(), span.v.bytes(), cudaMemcpyDeviceToHost, *down_);
    }
    Then(*down_, std::move(then));
  }

  std::shared_ptr<UcxLanding> Up(const KvSpan& span, std::shared_ptr<std::byte> from) override {
    const std::lock_guard lock(enqueuing_up_);
    Copy(span.k.data(), from.get(), span.k.bytes(), cudaMemcpyHostToDevice, *up_);
    Copy(span.v.data(), from.get() + span.k.bytes(), span.v.bytes(), cudaMemcpyHostToDevice, *up_);
    auto landing = std::make_shared<CudaLanding>(events_, up_->handle());
    Then(*up_, [from = std::move(from)] {});  // it is held until it has been read
    return landing;
  }

  void Settle() noexcept override {
    (void)cudaStreamSynchronize(down_->handle());
    (void)cudaStreamSynchronize(up_->handle());
  }

 private:
  void Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, CudaStream& stream) const {
    if (bytes == 0) return;
    const CurrentDevice current(gpu_);
    CheckCuda(cudaMemcpyAsync(to, from, bytes, kind, stream.handle()), gpu_, "cudaMemcpyAsync");
  }

  /// Calls `then` once the stream has come here, and lets go of what it holds.
  void Then(CudaStream& stream, std::function<void()> then) const {
    const CurrentDevice current(gpu_);
    auto held = std::make_unique<std::function<void()>>(std::move(then));
    const auto call = [](void* function) {
      const std::unique_ptr<std::function<void()>> own(static_cast<std::function<void()>*>(function));
      (*own)();
    };
    CheckCuda(cudaLaunchHostFunc(stream.handle(), call, held.get()), gpu_, "cudaLaunchHostFunc");
    (void)held.release();
  }

  int gpu_;
  bool reached_;  // UCX knows the GPU's memory
  std::shared_ptr<EventPool> events_;
  std::shared_ptr<PageLockedPool> pool_ = std::make_shared<PageLockedPool>();
  std::unique_ptr<CudaStream> down_;
  std::unique_ptr<CudaStream> up_;
  std::mutex enqueuing_down_;
  std::mutex enqueuing_up_;
};

}  // namespace

std::unique_ptr<UcxLane> MakeUcxCudaLane(Device& device, bool gpu_memory) {
  const std::unique_ptr<Stream> stream = device.NewStream();
  if (dynamic_cast<const CudaStream*>(stream.get()) == nullptr) return nullptr;
  return std::make_unique<CudaLane>(device, gpu_memory);
}

}  // namespace runahead
