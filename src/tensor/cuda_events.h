// CUDA events for the data path: made once, used again and again, and read as host time.
#pragma once

#include <driver_types.h>

#include <memory>
#include <mutex>
#include <vector>

#include "base/deadline.h"
#include "base/status.h"

namespace runahead {

/// Whether an event notes when it passes, which costs the device a little.
enum class EventTimes : bool { kNo, kYes };

/// Owns events of GPU `gpu` that nobody uses at the moment. Thread-safe.
class EventPool {
 public:
  EventPool(int gpu, EventTimes times) : gpu_(gpu), times_(times) {}
  ~EventPool();
  EventPool(const EventPool&) = delete;
  EventPool& operator=(const EventPool&) = delete;

  [[nodiscard]] int gpu() const { return gpu_; }
  cudaEvent_t Take();
  void Return(cudaEvent_t event);

 private:
  int gpu_;
  EventTimes times_;
  std::mutex mutex_;
  std::vector<cudaEvent_t> idle_;  // guarded by mutex_
};

/// A point in a stream's work. Recorded where it is made; its event goes back to the pool. Streams that were told to
/// wait for it go on waiting for this point, whatever becomes of the event.
class PooledEvent {
 public:
  /// `stream` is one of the pool's GPU. Throws DeviceError.
  PooledEvent(std::shared_ptr<EventPool> pool, cudaStream_t stream);
  ~PooledEvent() { pool_->Return(event_); }
  PooledEvent(const PooledEvent&) = delete;
  PooledEvent& operator=(const PooledEvent&) = delete;

  [[nodiscard]] cudaEvent_t handle() const { return event_; }
  /// Work of `stream`, of whichever GPU, enqueued from now on comes behind it. Throws DeviceError.
  void OrderBefore(cudaStream_t stream) const;
  /// Blocks the host. Fails at the deadline, or when the GPU failed.
  [[nodiscard]] Status Wait(Deadline deadline) const;

 private:
  std::shared_ptr<EventPool> pool_;
  cudaEvent_t event_;
};

/// A moment that a GPU and the host both know, to within the time that a GPU takes to answer (some 10 us). The clocks
/// drift apart by that much in about a second.
class ClockAnchor {
 public:
  /// Waits for all work of `stream`, of the pool's GPU; the pool's events note times.
  ClockAnchor(const std::shared_ptr<EventPool>& pool, cudaStream_t stream);

  /// The host's time when `event`, which notes times and has passed, passed.
  [[nodiscard]] Clock::time_point TimeOf(const PooledEvent& event) const;

 private:
  int gpu_;
  std::unique_ptr<PooledEvent> event_;
  Clock::time_point time_;
};

}  // namespace runahead
