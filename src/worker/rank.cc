#include "worker/rank.h"

#include <algorithm>

#include "base/deadline.h"
#include "ops/cuda/cuda_ops.h"
#include "tensor/cpu_device.h"
#include "tensor/cuda_device.h"

namespace runahead {

Rank::Rank(int index, const RankDevice& device, int threads, const std::vector<int>& processors, double slowdown,
           bool deterministic)
    : index_(index),
      gpu_(device.gpu),
      threads_(threads),
      slowdown_(slowdown),
      work_clock_(!device.gpu && threads == 1 ? ThreadSeconds : SecondsNow),
      device_(device.gpu ? MakeCudaDevice(*device.gpu) : MakeCpuDevice()),
      ops_(device.gpu ? MakeCudaOps(*device_, *device.gpu, deterministic) : MakeCpuOps(*device_, threads)),
      stream_(device_->NewStream()),
      thread_([this, processors] {
        BindThread(processors);
        FlushSubnormals();
        Run();
      }) {}

Rank::~Rank() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::future<void> Rank::Post(std::function<void()> task) {
  std::packaged_task<void()> packaged(std::move(task));
  std::future<void> done = packaged.get_future();
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(packaged));
    ++waiting_;
  }
  changed_.notify_all();
  return done;
}

size_t Rank::MissingWorkspaceBytes(const Decoder& decoder, int64_t rows) const {
  const auto bytes = [&](int64_t n) {
    return Workspace::Bytes(decoder.spec(), decoder.compute_dtype(), n, ops_->PreferredRows(),
                            workspace_ ? workspace_->logit_rows() : 1);
  };
  if (!workspace_) return bytes(rows);
  return workspace_->rows() < rows ? bytes(rows) - bytes(workspace_->rows()) : 0;
}

Workspace& Rank::WorkspaceFor(const Decoder& decoder, int64_t rows, int64_t logit_rows) {
  if (!workspace_ || workspace_->rows() < rows || workspace_->logit_rows() < logit_rows) {
    if (workspace_) {
      rows = std::max(rows, workspace_->rows());
      logit_rows = std::max(logit_rows, workspace_->logit_rows());
    }
    stream_->Synchronize();  // a session may have left work ahead of its next token
    workspace_.reset();      // first, so that both never exist at once
    workspace_.emplace(*device_, decoder.spec(), decoder.compute_dtype(), rows, ops_->PreferredRows(), logit_rows);
  }
  return *workspace_;
}

void Rank::AwaitTask() const {
  constexpr std::chrono::microseconds kPatience(300);
  const auto end = Clock::now() + kPatience;
  while (waiting_ == 0 && Clock::now() < end) std::this_thread::yield();
}

void Rank::Run() {
  while (true) {
    std::packaged_task<void()> task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
      --waiting_;
    }
    task();
    if (gpu_) AwaitTask();
  }
}

}  // namespace runahead
