// Random traces of requests on one engine, each compared with what it gets alone on one rank.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runahead/engine.h"
#include "runahead/request.h"

namespace runahead {

/// What one choice of a request got.
struct Answered {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;  // of the likeliest tokens at each step
  std::optional<RequestEvent> end;
};

/// Adds the events of a request to `answered` [choices], `most` at most, or until its end. Throws when none comes for
/// a minute.
void Await(RequestHandle& handle, std::vector<Answered>& answered, int most = std::numeric_limits<int>::max());

/// Engines of tiny models.
class ServingEngines {
 public:
  struct Key {
    std::string preset;
    std::string dtype;
    std::string devices;  // EngineOptions::devices
    int64_t pages = 0;    // pages of each rank's KV-cache
    bool deterministic = false;
    int processes = 1;  // that share the engine, each with ranks on `devices`
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  /// `cache_dir`: EngineOptions::cache_dir of all.
  explicit ServingEngines(std::string cache_dir = "") : cache_dir_(std::move(cache_dir)) {}

  /// At most a few are kept.
  const Engine& Of(const Key& key);

  /// What `request` gets alone on one rank, by a session.
  Answered Alone(const Key& key, const Request& request);

 private:
  /// An engine, and the processes that serve it their ranks.
  struct Served {
    std::shared_ptr<const void> others;
    std::unique_ptr<const Engine> engine;  // goes first
  };
  std::string cache_dir_;
  std::map<Key, Served> engines_;
};

/// The part of a process that ServingEngines starts, with these arguments behind "--serve-ranks".
void ServeRanksOf(const std::vector<std::string>& arguments);

/// What a trace showed.
struct TraceOutcome {
  std::string situation;  // to name it in a message
  int requests = 0;
  int differ = 0;  // requests whose ids or log-probabilities differ, by a single bit
  int64_t cached_tokens = 0;
  int gangs = 0;  // prompts that several ranks shared
  int cancelled = 0;
  std::string first_difference;
};

/// Plays the trace of `seed`: some ranks, a pool that may be too small for all, prompts with shared prefixes, some
/// cancelled, one or several at a time.
/// On GPUs, named by `devices`, sums depend on the batch: only the ids are compared, in f32, unless `deterministic`.
/// With several `processes` each has a CPU rank.
TraceOutcome PlayTrace(ServingEngines& engines, unsigned seed, const std::string& devices = "cpu",
                       bool deterministic = false, int processes = 1);

}  // namespace runahead
