#include "tensor/cuda_events.h"

#include <cuda_runtime_api.h>

#include <thread>

#include "tensor/cuda_check.h"

namespace runahead {

EventPool::~EventPool() {
  for (const cudaEvent_t event : idle_) (void)cudaEventDestroy(event);
}

cudaEvent_t EventPool::Take() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      const cudaEvent_t event = idle_.back();
      idle_.pop_back();
      return event;
    }
  }
  const CurrentDevice current(gpu_);
  cudaEvent_t event = nullptr;
  const unsigned flags = times_ == EventTimes::kYes ? cudaEventDefault : cudaEventDisableTiming;
  CheckCuda(cudaEventCreateWithFlags(&event, flags), gpu_, "cudaEventCreate");
  return event;
}

void EventPool::Return(cudaEvent_t event) {
  const std::lock_guard lock(mutex_);
  idle_.push_back(event);
}

PooledEvent::PooledEvent(std::shared_ptr<EventPool> pool, cudaStream_t stream)
    : pool_(std::move(pool)), event_(pool_->Take()) {
  const CurrentDevice current(pool_->gpu());
  const cudaError_t recorded = cudaEventRecord(event_, stream);
  if (recorded != cudaSuccess) pool_->Return(event_);
  CheckCuda(recorded, pool_->gpu(), "cudaEventRecord");
}

void PooledEvent::OrderBefore(cudaStream_t stream) const {
  CheckCuda(cudaStreamWaitEvent(stream, event_, 0), pool_->gpu(), "cudaStreamWaitEvent");
}

Status PooledEvent::Wait(Deadline deadline) const {
  // The runtime has no wait that ends. By the time the host waits, most copies are over.
  constexpr std::chrono::microseconds kPoll(20);
  while (true) {
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaSuccess) return Status::Ok();
    if (state != cudaErrorNotReady) return Status::Failed(cudaGetErrorString(state));
    if (Clock::now() >= deadline) return Status::Failed("the copy did not end before the deadline");
    std::this_thread::sleep_for(kPoll);
  }
}

ClockAnchor::ClockAnchor(const std::shared_ptr<EventPool>& pool, cudaStream_t stream) : gpu_(pool->gpu()) {
  constexpr int kTries = 3;  // the quickest answer tells best
  Clock::duration quickest = Clock::duration::max();
  for (int i = 0; i < kTries; ++i) {
    CheckCuda(cudaStreamSynchronize(stream), gpu_, "cudaStreamSynchronize");
    const auto asked = Clock::now();
    auto event = std::make_unique<PooledEvent>(pool, stream);
    CheckCuda(cudaEventSynchronize(event->handle()), gpu_, "cudaEventSynchronize");
    const auto answered = Clock::now();
    if (answered - asked >= quickest) continue;
    quickest = answered - asked;
    time_ = asked + quickest / 2;
    event_ = std::move(event);
  }
}

Clock::time_point ClockAnchor::TimeOf(const PooledEvent& event) const {
  float ms = 0;
  CheckCuda(cudaEventElapsedTime(&ms, event_->handle(), event.handle()), gpu_, "cudaEventElapsedTime");
  return time_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(ms));
}

}  // namespace runahead
