// Copies between GPUs: ordered by events on both sides, so that the host enqueues a whole prompt phase ahead.
#include <cuda_runtime_api.h>

#include <thread>

#include "link/local/passage.h"
#include "tensor/cuda_check.h"
#include "tensor/cuda_stream.h"

namespace runahead {
namespace {

/// Owns an event of GPU `ordinal`, recorded where it is made.
class RecordedEvent final : public Departure, public Arrival {
 public:
  RecordedEvent(int ordinal, cudaStream_t stream) : ordinal_(ordinal) {
    const CurrentDevice current(ordinal);
    CheckCuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), ordinal, "cudaEventCreate");
    CheckCuda(cudaEventRecord(event_, stream), ordinal, "cudaEventRecord");
  }
  ~RecordedEvent() override { (void)cudaEventDestroy(event_); }
  RecordedEvent(const RecordedEvent&) = delete;
  RecordedEvent& operator=(const RecordedEvent&) = delete;

  [[nodiscard]] cudaEvent_t handle() const { return event_; }

  Status Wait(Deadline deadline) override {
    // The runtime has no wait that ends; copies take far longer than a poll.
    constexpr std::chrono::microseconds kPoll(20);
    while (true) {
      const cudaError_t state = cudaEventQuery(event_);
      if (state == cudaSuccess) return Status::Ok();
      if (state != cudaErrorNotReady) return Status::Failed(cudaGetErrorString(state));
      if (Clock::now() >= deadline) return Status::Failed("the copy did not end before the deadline");
      std::this_thread::sleep_for(kPoll);
    }
  }

  void OrderBefore(Stream& stream) override {
    CheckCuda(cudaStreamWaitEvent(static_cast<CudaStream&>(stream).handle(), event_, 0), ordinal_,
              "cudaStreamWaitEvent");
  }

 private:
  int ordinal_;
  cudaEvent_t event_ = nullptr;
};

class CudaPassage final : public Passage {
 public:
  CudaPassage(int from, int to) : from_(from), to_(to) {
    (void)EnablePeerAccess(from, to);
    (void)EnablePeerAccess(to, from);
    const CurrentDevice current(from);
    cudaStream_t stream = nullptr;
    CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), from, "cudaStreamCreate");
    stream_ = std::make_unique<CudaStream>(from, stream);
  }

  /// The spans' memory may be freed once the passage is gone.
  ~CudaPassage() override { (void)cudaStreamSynchronize(stream_->handle()); }
  CudaPassage(const CudaPassage&) = delete;
  CudaPassage& operator=(const CudaPassage&) = delete;

  std::shared_ptr<Departure> Depart(Stream& after) override {
    return std::make_shared<RecordedEvent>(from_, static_cast<CudaStream&>(after).handle());
  }

  std::shared_ptr<Arrival> Move(const KvSpan& from, const KvSpan& to,
                                const std::shared_ptr<Departure>& when) override {
    const CurrentDevice current(from_);
    CheckCuda(cudaStreamWaitEvent(stream_->handle(), static_cast<RecordedEvent&>(*when).handle(), 0), from_,
              "cudaStreamWaitEvent");
    for (const auto& [source, target] : {std::pair(from.k, to.k), std::pair(from.v, to.v)}) {
      CheckCuda(cudaMemcpyPeerAsync(target.data(), to_, source.data(), from_, source.bytes(), stream_->handle()),
                from_, "cudaMemcpyPeerAsync");
    }
    return std::make_shared<RecordedEvent>(from_, stream_->handle());
  }

 private:
  int from_;
  int to_;
  std::unique_ptr<CudaStream> stream_;
};

}  // namespace

std::unique_ptr<Passage> MakeCudaPassage(int from_gpu, int to_gpu) {
  return std::make_unique<CudaPassage>(from_gpu, to_gpu);
}

}  // namespace runahead
