// The archive of an engine's pages: a folder, and the threads that move rows between it and the ranks' caches.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine_state.h"
#include "kv/kv_cache.h"
#include "schedule/crew.h"
#include "store/page_store.h"

namespace runahead {

/// Loads on one thread, saves on another, each in the order in which it was told. Borrows the engine and the caches
/// of its ranks. Thread-safe.
class PageArchive final : public Archive {
 public:
  /// Called by a thread of the archive.
  struct Listener {
    std::function<void(uint64_t move, int64_t tokens)> loaded;  // see Scheduler::Loaded
    std::function<void(uint64_t move)> saved;
  };

  /// `caches`: of the ranks of this process. Throws IoError where the folder of `options` cannot be used.
  PageArchive(EngineState& engine, const EngineOptions& options, std::span<const KvCache> caches, Listener listener);
  /// Ends loads; goes on with saves, for a while.
  ~PageArchive() override;
  PageArchive(const PageArchive&) = delete;
  PageArchive& operator=(const PageArchive&) = delete;

  [[nodiscard]] bool Serves(int rank) const override;
  [[nodiscard]] int64_t Kept(std::span<const int32_t> tokens, bool long_angles) override;
  void Load(PageMove move) override;
  void Save(PageMove move) override;

  /// Waits until all that was told is saved, for a while. Returns why something was not, the last time; empty: all
  /// is.
  [[nodiscard]] std::string Flush();

 private:
  /// Moves that wait for one of the threads.
  struct Queue {
    std::deque<PageMove> moves;  // guarded by mutex_
    bool busy = false;           // guarded by mutex_
    std::condition_variable changed;
    std::thread thread;
  };

  void Run(Queue& queue, void (PageArchive::*move)(const PageMove&));
  void Add(Queue& queue, PageMove move);
  void LoadNow(const PageMove& move);
  void SaveNow(const PageMove& move);
  /// How many pages are there now.
  [[nodiscard]] int64_t LoadPages(const PageMove& move, std::span<const PageKey> keys);
  [[nodiscard]] Status SavePages(const PageMove& move, std::span<const PageKey> keys);
  enum class Direction : unsigned char { kToCache, kFromCache };
  /// Copies a page's rows between `rows`, in host memory, and the cache of `rank`.
  void Copy(int rank, int32_t page, std::span<std::byte> rows, Direction direction);
  [[nodiscard]] std::vector<PageKey> KeysOf(std::span<const int32_t> tokens, bool long_angles) const;
  [[nodiscard]] bool MayGoOn() const;

  EngineState& engine_;
  std::span<const KvCache> caches_;
  Listener listener_;
  std::array<PageKey, 2> roots_;  // of short and of long sequences
  PageStore store_;

  mutable std::mutex mutex_;
  std::string failure_;                 // guarded by mutex_
  std::atomic<bool> stopping_ = false;  // set with mutex_ held
  std::atomic<Deadline> until_;         // of the saves that are left once it stops
  Queue loads_;
  Queue saves_;
};

}  // namespace runahead
