// What `runahead plan` prints and draws.
#pragma once

#include <string>

#include "plan/plan_table.h"
#include "plan/simulator.h"

namespace runahead::cli {

std::string ToText(const PlanTable& table);
std::string ToJson(const PlanTable& table);
/// Speed-up by ranks, a line for each context, above the timeline of the last row's best strategy, `played`.
std::string ToSvg(const PlanTable& table, const Simulation& played);
/// That timeline alone.
std::string TimelineOf(const PlanTable& table, const Simulation& played);

}  // namespace runahead::cli
