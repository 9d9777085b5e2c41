#include "ops/cpu/team.h"

#include <omp.h>

#include <algorithm>
#include <atomic>

#include "base/check.h"

namespace runahead::cpu {

Team::Team(int threads) : threads_(threads) { CHECK_GE(threads, 1); }

void Team::Run(int64_t count, TaskRef task) const {
  const auto workers = static_cast<int>(std::min<int64_t>(threads_, count));
  if (workers <= 1) {
    for (int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  // The OpenMP run-time orders fork and join itself; the release-acquire pair on `next` says the same to tools that
  // cannot see inside it.
  std::atomic<int64_t> next{0};
  next.store(0, std::memory_order_release);
#pragma omp parallel num_threads(workers)
  {
    const int worker = omp_get_thread_num();
    for (int64_t i = next.fetch_add(1, std::memory_order_acq_rel); i < count;
         i = next.fetch_add(1, std::memory_order_acq_rel)) {
      task(i, worker);
    }
  }
  (void)next.load(std::memory_order_acquire);
}

}  // namespace runahead::cpu
