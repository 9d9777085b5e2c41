// The experiments of the KV-Runahead paper: TTFT by context, ranks and bandwidth, partitions searched and predicted,
// traffic of others on a link, and where the time goes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "runahead/engine.h"
#include "runahead/model.h"

namespace runahead {

struct SuiteModel {
  Model model;
  std::string name;  // what the suite's results call it
};

struct SuitePlan {
  std::vector<SuiteModel> models;
  std::function<Engine(const Model&, const EngineOptions&)> load;  // Engine::Load, or what tells of it meanwhile
  EngineOptions engine;            // options of the engine; each case replaces the links
  std::vector<int64_t> contexts;   // prompt lengths; those beyond a model's context are left out
  std::vector<int64_t> ranks;      // numbers of ranks beside 1; empty: 2, 4, 8, ... and all of the devices
  std::vector<std::string> links;  // cases: "full", "host", "link:RATE", "rank:RATE"
  int64_t probe_context = 0;       // prompt length of side traffic and breakdown; 0: the longest up to 16,384
  int repeats = 5;                 // timed runs of each way
  int warmup = 1;
  int decoded_tokens = 0;       // tokens decoded behind each prompt
  int search_repeats = 2;       // timed runs of each searched partition
  int search_evaluations = 12;  // partitions timed in one search
  uint64_t seed = 0;            // seed of the prompts' random ids
};

/// Refuses what can be refused before anything runs: links, ranks and contexts of every model, and its files. Throws
/// ConfigError or IoError naming the flag or the file, and the value.
void CheckSuite(const SuitePlan& plan);

/// Runs everything. `say` gets a line for people now and then; `keep` gets all that is known so far, after each
/// context. Throws what Session throws, and Error when some way did not compute what one rank computes.
Json RunPaperSuite(const SuitePlan& plan, const std::function<void(const std::string&)>& say,
                   const std::function<void(const Json&)>& keep);

}  // namespace runahead
