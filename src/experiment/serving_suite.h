// Many requests that arrive over time, served by three policies: how soon each gets its first token, and the next
// ones.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "runahead/engine.h"
#include "runahead/model.h"

namespace runahead {

struct ServingPlan {
  Model model;
  std::string name;                                                // what the results call the model
  std::function<Engine(const Model&, const EngineOptions&)> load;  // Engine::Load, or what tells of it meanwhile
  EngineOptions engine;
  int64_t long_tokens = 4096;  // tokens of a long prompt
  int requests = 60;           // requests that arrive; some come back with a second turn
  double gap_s = 0;            // mean time between two arrivals, s; 0: from the time of a long prompt alone
  uint64_t seed = 0;
};

/// One arrival of a trace.
struct ServingArrival {
  double at_s = 0;
  std::vector<int32_t> prompt;
  int max_new_tokens = 0;
  bool is_long = false;
  std::vector<int32_t> second_turn;  // behind the answer, as soon as it has ended; empty: none
};

/// The trace of a seed: short prompts, long ones, long ones with a second turn, and questions about two documents of
/// half that length. `gap_s` is the mean of the times between arrivals, which are drawn independently.
std::vector<ServingArrival> MakeServingTrace(const ServingPlan& plan, double gap_s, int64_t vocab);

/// Plays the trace by "gang and spread" (the engine's own plan), "every prompt alone" and "every prompt over all
/// ranks", each on an engine with an empty cache. `say` gets a line for people now and then. Throws what Engine
/// throws, and Error when a request failed.
Json RunServingSuite(const ServingPlan& plan, const std::function<void(const std::string&)>& say);

}  // namespace runahead
