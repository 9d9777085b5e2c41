// Batches of answers: how long a step of all of them takes, behind prompts of one length that were read at once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "runahead/engine.h"
#include "runahead/model.h"

namespace runahead {

struct DecodePlan {
  Model model;
  std::string name;                                                // what the results call the model
  std::function<Engine(const Model&, const EngineOptions&)> load;  // Engine::Load, or what tells of it meanwhile
  EngineOptions engine;
  std::vector<int> batches;       // sequences of each run
  std::vector<int64_t> contexts;  // tokens of their prompts
  int steps = 64;                 // steps that are timed
  int repeats = 3;
  uint64_t seed = 0;
};

/// Each batch at each context: the time until all prompts have their first token, and the times of the steps that
/// follow, while all answer. Before, the first tokens of a few answers of the batch are compared with what each gets
/// alone. Behind each run one conversation goes on: a second turn of a few tokens. `say` gets a line for people now
/// and then. Throws what Engine throws, and Error when a request failed or got other tokens than rounding explains.
Json RunDecodeSuite(const DecodePlan& plan, const std::function<void(const std::string&)>& say);

}  // namespace runahead
