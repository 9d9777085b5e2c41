// What `runahead bench --suite` says about a suite of experiments.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace runahead::cli {

/// A short table of a suite's JSON, which CheckSuiteJson has checked, as for SuitePlots.
std::string SuiteTable(const Json& suite);

/// The cases of links in one model of a suite's JSON.
std::vector<std::string> LinkCases(const Json& model);

/// The files of SuitePlots for one model and case of links.
struct PlotNames {
  std::string contexts;
  std::string ranks;
};
PlotNames PlotNamesOf(const std::string& model, const std::string& links);

/// Pictures by file name, from a suite's JSON alone: TTFT by context, and by ranks at the context nearest to 12k, for
/// each model and case of links.
std::map<std::string, std::string> SuitePlots(const Json& suite);

}  // namespace runahead::cli
