// A timeline for the terminal.
#pragma once

#include <span>
#include <string>

#include "runahead/timeline.h"

namespace runahead::report {

/// One line per rank of `columns` characters, each showing what took most of its stretch of time, followed by the
/// rank's shares of compute, wait and send in the whole; then a time axis and a legend. Ends with a newline.
std::string TimelineText(std::span<const TimelineEvent> events, int columns = 70);

}  // namespace runahead::report
