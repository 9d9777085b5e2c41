// Gates that hold copies between GPUs back until a throttle lets them arrive.
#pragma once

#include <driver_types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "link/throttle.h"

namespace runahead {

/// One link's gate. Used by one thread at a time.
///
/// The copy itself runs at full speed; what is behind it in the stream waits for a word in host memory, by the
/// stream's front end and not by a kernel, so that no multiprocessor has anything to do with it. A thread of
/// PacedGates sees each copy begin, asks the throttle, and writes the word when its time has come. A transfer takes
/// bytes / rate and, for two ways over the bus, some 5 to 10 us more.
class Gate {
 public:
  virtual ~Gate() = default;
  /// The next transfer, of `bytes`, begins when `stream` of `gpu` comes to this point.
  virtual void Begin(int gpu, cudaStream_t stream, size_t bytes) = 0;
  /// What is enqueued on `stream` of `gpu` from now on comes after that transfer's end.
  virtual void End(int gpu, cudaStream_t stream) = 0;
  /// Lets everything pass that has begun or will: for those who tidy up.
  virtual void OpenForGood() = 0;
};

/// The gates of a fabric, and the thread that opens them; it keeps one processor busy while transfers are under way.
/// Gates must not outlive it.
class PacedGates {
 public:
  /// Throws DeviceError where a GPU's streams cannot wait for a word in memory.
  PacedGates(const std::vector<int>& gpus, std::shared_ptr<Throttle> throttle);
  ~PacedGates();
  PacedGates(const PacedGates&) = delete;
  PacedGates& operator=(const PacedGates&) = delete;

  /// The gate of the transfers from rank `from` to rank `to`, which the throttle limits.
  std::unique_ptr<Gate> Make(int from, int to);

 private:
  friend class PacedGate;

  /// The words of one gate, in page-locked memory, a cache line for each side.
  struct Words {
    alignas(64) uint32_t begun;  // transfers that have begun, written by the GPU
    alignas(64) uint32_t open;   // transfers that may pass, written by the host
  };
  struct Due {
    uint32_t number;  // number of the transfer, from 1
    Clock::time_point time;
  };
  struct Lane {
    int from = 0;
    int to = 0;
    Words* words = nullptr;
    uint32_t issued = 0;       // transfers enqueued
    uint32_t booked = 0;       // issued transfers that are booked with the throttle
    uint32_t opened = 0;       // booked transfers whose time has come
    std::deque<size_t> bytes;  // bytes of each transfer issued and not booked
    std::deque<Due> due;       // transfers booked and not opened
  };

  void Run();
  /// Books and opens what can be. Returns whether something is under way. Needs `mutex_`.
  bool Step();

  std::shared_ptr<Throttle> throttle_;
  int first_gpu_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Lane> lanes_;  // guarded by mutex_; their addresses stay
  bool stopping_ = false;   // guarded by mutex_
  std::thread thread_;
};

}  // namespace runahead
