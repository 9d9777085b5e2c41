#include "suite_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan/profile_key_json.h"

namespace runahead::cli {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 40;
constexpr int64_t kMostRanksStored = 4096;

/// A list of at least `least` integers of [min, max].
void CheckIntegers(const JsonObject& object, const char* key, size_t least, int64_t min, int64_t max) {
  const Json& list = object.At(key);
  const bool fits =
      list.is_array() && list.size() >= least && list.size() <= static_cast<size_t>(kMostRanksStored) + 1 &&
      std::all_of(list.begin(), list.end(),
                  [&](const Json& value) { return value.is_number_integer() && value >= min && value <= max; });
  if (!fits) object.Refuse(key, fmt::format("expected a list of integers from {} to {}", min, max));
}

/// A time, a rate or a share, such that neither it nor its logarithm is infinite.
void CheckPositive(const JsonObject& object, const char* key) {
  constexpr double kSmallest = 1e-9;
  constexpr double kLargest = 1e18;
  const double value = object.Number(key);
  if (value < kSmallest || value > kLargest) {
    object.Refuse(key, fmt::format("expected a number from {} to {}", kSmallest, kLargest));
  }
}

void CheckResult(const JsonObject& result) {
  (void)result.String("links");
  (void)result.String("way");
  (void)result.String("topology", "");
  (void)result.Int("ranks", 1, kMostRanksStored);
  (void)result.Int("context", 1, kMostTokens);
  CheckIntegers(result, "cuts", 2, 0, kMostTokens);
  CheckPositive(result, "ttft_ms_median");
  CheckPositive(result, "share_of_limit");
  CheckPositive(result, "efficiency");
  if (result.Has("speed_up_over_tsp")) CheckPositive(result, "speed_up_over_tsp");
}

void CheckSideTraffic(const JsonObject& run) {
  (void)run.String("links");
  (void)run.String("way");
  (void)run.Int("context", 1, kMostTokens);
  (void)run.Number("traffic_bytes_per_s");
  (void)run.Number("ttft_ms_median");
  (void)run.Number("disturbed_ttft_ms_median");
  (void)run.Number("lost_share");
}

}  // namespace

void CheckSuiteJson(const Json& suite, const std::string& origin) {
  for (const JsonObject& model : ObjectsOf(JsonObject(suite, origin), "models")) {
    (void)model.String("model");
    (void)model.String("dtype");
    (void)model.String("device");
    CheckIntegers(model, "ranks", 1, 1, kMostRanksStored);
    CheckIntegers(model, "contexts", 1, 1, kMostTokens);
    for (const JsonObject& result : ObjectsOf(model, "results")) CheckResult(result);
    for (const JsonObject& run : ObjectsOf(model, "side_traffic")) CheckSideTraffic(run);
  }
}

}  // namespace runahead::cli
