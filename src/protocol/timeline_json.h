// The timeline of a prompt phase as JSON, for people who look at it.
#pragma once

#include <string>
#include <vector>

#include "runahead/timeline.h"

namespace runahead::protocol {

/// A JSON list: [{"rank", "layer", "kind", "begin_ms", "end_ms", "bytes", "peer"}, ...]. Of more than a thousand
/// events those of one kind that follow each other closely on a rank are joined.
std::string TimelineJson(std::vector<TimelineEvent> events);

}  // namespace runahead::protocol
