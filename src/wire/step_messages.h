// What a rank is told and answers, as bytes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "wire/bytes.h"
#include "worker/step_plan.h"

namespace runahead {

/// All of `plan` but its stop: that word is said on its own, while the step runs.
std::string EncodeStepPlan(const StepPlan& plan);
std::string EncodeStepResult(const StepResult& result);

/// Bytes that may be anything. What they hold is complete and in itself consistent (a gang has as many cuts, pages
/// and rows held as members, and its own place among them), but ids, pages and ranks are for whoever knows their
/// ranges to check. A plan gets a stop of its own.
Status DecodeStepPlan(std::string_view bytes, StepPlan& plan);
Status DecodeStepResult(std::string_view bytes, StepResult& result);

void PutTimeline(ByteWriter& out, const std::vector<TimelineEvent>& timeline);
std::vector<TimelineEvent> GetTimeline(ByteReader& in);

}  // namespace runahead
