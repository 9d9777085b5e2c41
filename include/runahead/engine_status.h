// What an engine and its ranks do at the moment, for those who watch over it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/export.h"

namespace runahead {

/// What a rank's step is about: nothing, a prompt that it reads alone (beside answers, too), answers, or its part of
/// a prompt that several ranks read together.
enum class RankActivity : unsigned char { kIdle, kReading, kAnswering, kGang };

/// Throws ConfigError for a number that the enum does not have.
RUNAHEAD_API std::string_view Name(RankActivity activity);  // "idle", "reading", "answering", "gang"

/// One rank, as requests use it.
struct RankStatus {
  std::string device;        // as Engine::devices says
  int64_t pages = 0;         // pages of its KV-cache; 0: it is made with the first request
  int64_t pages_used = 0;    // pages that running requests have
  int64_t pages_cached = 0;  // pages of prefixes that no running request has
  RankActivity doing = RankActivity::kIdle;
  int requests = 0;   // requests that it reads or answers
  double busy_s = 0;  // time of its steps so far, s
  double wait_s = 0;  // the part of it in which it waited for rows of others, s; GPUs: with recorded timelines alone
  int64_t bytes_sent = 0;  // keys and values that it handed over
  bool lost = false;       // its process is gone: the others do its work until it comes back
};

/// Counts of the requests that have ended.
struct RequestTotals {
  int64_t requests = 0;
  int64_t failed = 0;
  int64_t cancelled = 0;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t new_tokens = 0;
};

struct EngineStatus {
  bool failed = false;      // it takes no requests any more
  std::string failure;      // why
  int64_t waiting = 0;      // requests that wait to begin
  int64_t running = 0;      // requests that have begun
  int64_t preempted = 0;    // times that a request made room for an older one
  int64_t page_tokens = 0;  // tokens of a page
  RequestTotals totals;
  std::vector<RankStatus> ranks;
};

}  // namespace runahead
