#include "base/thread_room.h"

#include <pthread.h>
#include <sys/mman.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <vector>

namespace runahead {
namespace {

/// Lets threads stand until all have been started.
struct Gate {
  std::mutex mutex;
  std::condition_variable opened;
  bool open = false;
};

void* Stand(void* gate_of_all) {
  std::free(std::malloc(1));  // what the allocator sets aside for a thread
  auto& gate = *static_cast<Gate*>(gate_of_all);
  std::unique_lock lock(gate.mutex);
  gate.opened.wait(lock, [&] { return gate.open; });
  return nullptr;
}

/// Whether there is address space left beside the threads, for what they work on.
bool HasRoomBeside() {
  constexpr size_t kRoom = size_t{256} << 20;
  void* const room =
      ::mmap(nullptr, kRoom, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return false;
  ::munmap(room, kRoom);
  return true;
}

}  // namespace

int StartableThreads(int wanted) {
  Gate gate;
  std::vector<pthread_t> threads;
  bool fits = true;
  while (fits && static_cast<int>(threads.size()) < wanted) {
    pthread_t thread{};
    fits = ::pthread_create(&thread, nullptr, Stand, &gate) == 0;
    if (fits) threads.push_back(thread);
  }
  const bool beside = !fits || HasRoomBeside();
  {
    const std::lock_guard lock(gate.mutex);
    gate.open = true;
  }
  gate.opened.notify_all();
  for (const pthread_t thread : threads) ::pthread_join(thread, nullptr);
  const int started = static_cast<int>(threads.size());
  return beside ? started : started - 1;
}

}  // namespace runahead
