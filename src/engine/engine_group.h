// The processes that share an engine's ranks, and what each of them loads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine_state.h"
#include "group/process_group.h"
#include "group/remote_ranks.h"

namespace runahead {

struct EngineGroup {
  std::shared_ptr<ProcessGroup> processes;
  std::unique_ptr<RemoteRanks> remote;  // ranks of the others; null but at process 0
  std::vector<RankFacts> own;           // [ranks here], without their pages
};

/// Why the group of `engine` cannot go on; empty: it can, or there is one process.
inline std::string LostOf(const EngineState& engine) {
  return engine.group() == nullptr ? std::string() : engine.group()->processes->lost();
}
/// Throws LinkError where it cannot.
void CheckGroup(const EngineState& engine);

/// Meets the group of `options`; null where there is one process. Throws as ProcessGroup does.
std::unique_ptr<EngineGroup> JoinGroup(const ModelConfig& config, const EngineOptions& options);

/// LoadEngineState behind JoinGroup.
std::shared_ptr<EngineState> LoadEngineState(const ModelConfig& config, const EngineOptions& options,
                                             std::unique_ptr<EngineGroup> group);

}  // namespace runahead
