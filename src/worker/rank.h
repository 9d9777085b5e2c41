// One rank: a thread with its device, its operations and the memory of its forward passes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/undisturbed.h"
#include "model/decoder.h"
#include "ops/devices.h"
#include "ops/ops.h"
#include "tensor/device.h"

namespace runahead {

/// Runs tasks one after the other on a thread of its own, bound to `processors`, on a GPU or with `threads` of the
/// CPU. Post is thread-safe; the rest belongs to the tasks.
class Rank {
 public:
  /// Compute of prompt phases takes `slowdown` times as long (MakeSlowExchange). Throws ConfigError where there is no
  /// such device.
  /// `deterministic`: MakeCudaOps; on the CPU it is always so.
  Rank(int index, const RankDevice& device, int threads, const std::vector<int>& processors, double slowdown = 1,
       bool deterministic = false);
  ~Rank();
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  /// Queues `task`. What it throws comes out of the future.
  std::future<void> Post(std::function<void()> task);

  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] std::optional<int> gpu() const { return gpu_; }  // ordinal of the GPU; none: the CPU
  [[nodiscard]] int threads() const { return threads_; }         // threads of the CPU
  [[nodiscard]] double slowdown() const { return slowdown_; }
  /// The clock of its compute.
  [[nodiscard]] WorkClock work_clock() const { return work_clock_; }
  [[nodiscard]] Device& device() { return *device_; }
  [[nodiscard]] Ops& ops() { return *ops_; }
  [[nodiscard]] Stream& stream() { return *stream_; }
  /// Bytes that WorkspaceFor allocates beyond those that it frees.
  [[nodiscard]] size_t MissingWorkspaceBytes(const Decoder& decoder, int64_t rows) const;
  /// The workspace, which is made anew when it is too small for `rows`, or for logits of `logit_rows` of them.
  Workspace& WorkspaceFor(const Decoder& decoder, int64_t rows, int64_t logit_rows = 1);

 private:
  void Run();
  /// A GPU's thread looks for its next task for a while: to be woken takes longer than a step of answers can wait.
  void AwaitTask() const;

  int index_;
  std::optional<int> gpu_;
  int threads_;
  double slowdown_;
  WorkClock work_clock_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Stream> stream_;
  std::optional<Workspace> workspace_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<void()>> tasks_;  // guarded by mutex_
  std::atomic<int> waiting_ = 0;                  // size of tasks_
  bool stopping_ = false;                         // guarded by mutex_
  std::thread thread_;                            // last: it uses all of the above
};

}  // namespace runahead
