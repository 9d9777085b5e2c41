// What an engine does, as JSON for those who look on.
#pragma once

#include <span>
#include <string>

#include "runahead/engine_status.h"
#include "runahead/timeline.h"

namespace runahead::protocol {

/// The fields of a status, without the braces around them: "healthy", "failure", "ranks", ...
std::string StatusFields(const EngineStatus& status);

/// A JSON list: [{"rank", "layer", "kind", "begin_ms", "end_ms", "bytes", "peer"}, ...]
std::string TimelineJson(std::span<const TimelineEvent> events);

}  // namespace runahead::protocol
