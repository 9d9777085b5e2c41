// A timeline for trace viewers.
#pragma once

#include <span>
#include <string>

#include "runahead/timeline.h"

namespace runahead::report {

/// The JSON of the Trace Event Format ("X" events, microseconds), which Perfetto and Chrome open: one thread per
/// rank, its sends and its receives on threads of their own, since they may overlap with compute.
std::string TraceEvents(std::span<const TimelineEvent> events);

}  // namespace runahead::report
