// What runs and what ran lately, for people who look on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/request.h"

namespace runahead::protocol {

/// One choice that runs: written by the engine's thread, read by any.
struct BoardEntry {
  std::string id;
  int64_t prompt_tokens = 0;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  uint64_t number = 0;              // of the board
  std::atomic<bool> begun = false;  // its prompt phase
  std::atomic<int64_t> prompt_done = 0;
  std::atomic<int64_t> cached_tokens = 0;
  std::atomic<int64_t> new_tokens = 0;
  std::atomic<double> predicted_ttft_ms = 0;
  std::atomic<double> predicted_left_ms = 0;
};

/// Thread-safe; nothing is built while others wait.
class Board {
 public:
  /// Registers what begins.
  std::shared_ptr<BoardEntry> Add(std::string id, int64_t prompt_tokens);
  /// Forgets what never began.
  void Remove(const BoardEntry& entry);
  /// Forgets what ended, and keeps it for a while among the recent ones.
  void End(const BoardEntry& entry, FinishReason finish, RequestStats stats);

  /// A JSON list of the first 200 that run, in their order.
  [[nodiscard]] std::string RequestsJson() const;
  /// A JSON list of the last 20 that ended, newest first, to the one whose id is `known`.
  [[nodiscard]] std::string RecentJson(std::string_view known) const;

 private:
  /// One that ended.
  struct Ended {
    std::string id;
    FinishReason finish = FinishReason::kLength;
    double predicted_ttft_ms = 0;
    RequestStats stats;
    std::once_flag once;
    std::string json;  // made by the first who asks
  };
  static std::string JsonOf(const Ended& ended);

  mutable std::mutex mutex_;
  uint64_t next_ = 0;                                        // guarded by mutex_
  std::map<uint64_t, std::shared_ptr<BoardEntry>> running_;  // by number, guarded by mutex_
  std::deque<std::shared_ptr<Ended>> recent_;                // newest first, guarded by mutex_
};

}  // namespace runahead::protocol
