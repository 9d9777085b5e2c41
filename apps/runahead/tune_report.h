// What `runahead tune` says about what it found.
#pragma once

#include <string>
#include <vector>

#include "experiment/check_predictions.h"
#include "plan/cost_profile.h"
#include "tune/search_partitions.h"

namespace runahead::cli {

/// What was measured of each device, at the longest chunk, and of the links.
std::string ToText(const CostProfile& profile);
/// A table of the searches.
std::string ToText(const std::vector<SearchReport>& reports);
/// A table of predictions and what was measured.
std::string ToText(const std::vector<Checked>& checked);
std::string ToJson(const std::vector<Checked>& checked);

}  // namespace runahead::cli
