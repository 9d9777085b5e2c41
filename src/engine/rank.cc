#include "engine/rank.h"

#include "tensor/cpu_device.h"

namespace runahead {

Rank::Rank(int index, int threads, const std::vector<int>& processors, double slowdown)
    : index_(index),
      slowdown_(slowdown),
      device_(MakeCpuDevice()),
      ops_(MakeCpuOps(*device_, threads)),
      stream_(device_->NewStream()),
      thread_([this, processors] {
        BindThread(processors);
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
  }
  changed_.notify_all();
  return done;
}

Workspace& Rank::WorkspaceFor(const Decoder& decoder, int64_t rows) {
  if (!workspace_ || workspace_->rows() < rows) {
    workspace_.reset();  // first, so that both never exist at once
    workspace_.emplace(*device_, decoder.spec(), decoder.compute_dtype(), rows);
  }
  return *workspace_;
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
    }
    task();
  }
}

}  // namespace runahead
