// A timeline as a picture.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runahead/timeline.h"

namespace runahead::report {

struct TimelineSvgOptions {
  std::string title = "Prompt phase";
  std::vector<std::string> lanes;  // label of each rank; a missing one reads "rank 3"
};

/// One lane per rank: a bar of compute and waits, the layers set apart, and below it thin bars of sends and of
/// receives, which may overlap with both. Tooltips give layer, duration, the other rank, bytes and GB/s. The axis is
/// in milliseconds.
std::string TimelineSvg(std::span<const TimelineEvent> events, const TimelineSvgOptions& options = {});

}  // namespace runahead::report
