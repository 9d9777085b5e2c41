#include "plan/cost_profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/units.h"
#include "plan/profile_key_json.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int64_t kProfileVersion = 2;
constexpr int64_t kMostRows = int64_t{1} << 40;
constexpr double kSlowest = 1e-9;  // GB/s, so that no time is infinite

Json ToJson(const DeviceCost& device) {
  Json rows = Json::array();
  for (const RowCost& knot : device.knots) {
    rows.push_back({{"rows", knot.rows},
                    {"before_us", knot.before_s * kMicrosPerSecond},
                    {"layer_us", knot.layer_s * kMicrosPerSecond},
                    {"pair_ns", knot.pair_s * kNanosPerSecond}});
  }
  return {{"name", device.name},
          {"rows", std::move(rows)},
          {"finish_us", device.finish_s * kMicrosPerSecond},
          {"finish_pair_ns", device.finish_pair_s * kNanosPerSecond},
          {"masked_pair", device.masked_pair}};
}

DeviceCost DeviceFromJson(const JsonObject& object) {
  DeviceCost device;
  device.name = object.String("name");
  int64_t more_than = 0;
  for (const JsonObject& knot : ObjectsOf(object, "rows")) {
    const int64_t rows = knot.Int("rows", more_than + 1, kMostRows);
    more_than = rows;
    device.knots.push_back({rows, NumberAtLeast(knot, "before_us", 0) / kMicrosPerSecond,
                            NumberAtLeast(knot, "layer_us", 0) / kMicrosPerSecond,
                            NumberAtLeast(knot, "pair_ns", 0) / kNanosPerSecond});
  }
  if (device.knots.empty()) object.Refuse("rows", "expected at least one measurement");
  device.finish_s = NumberAtLeast(object, "finish_us", 0) / kMicrosPerSecond;
  device.finish_pair_s = NumberAtLeast(object, "finish_pair_ns", 0) / kNanosPerSecond;
  device.masked_pair = NumberAtLeast(object, "masked_pair", 0);
  return device;
}

Json ToJson(const LinkTable& links) {
  Json list = Json::array();
  for (int from = 0; from < links.ranks(); ++from) {
    for (int to = 0; to < links.ranks(); ++to) {
      if (from == to) continue;
      const LinkCost& link = links.Between(from, to);
      list.push_back({{"from", from},
                      {"to", to},
                      {"latency_us", link.latency_s * kMicrosPerSecond},
                      {"setup_us", link.setup_s * kMicrosPerSecond},
                      {"bandwidth_gbs", link.bytes_per_s / kGiga},
                      {"moved_by", link.mover == Mover::kThread ? "thread" : "engine"}});
    }
  }
  return list;
}

/// The hosts that ranks are on, where there are several.
std::vector<int> HostsFromJson(const JsonObject& object, int ranks) {
  if (!object.Has("hosts")) return {};
  const Json& list = object.At("hosts");
  const auto names_one = [ranks](const Json& host) { return host.is_number_unsigned() && host < ranks; };
  if (!list.is_array() || list.size() != static_cast<size_t>(ranks) ||
      !std::all_of(list.begin(), list.end(), names_one)) {
    object.Refuse("hosts", fmt::format("expected a number below {0} for each of {0} ranks", ranks));
  }
  return list.get<std::vector<int>>();
}

LinkTable LinksFromJson(const JsonObject& object, int ranks) {
  const std::vector<JsonObject> list = ObjectsOf(object, "links");
  if (list.size() != static_cast<size_t>(ranks) * static_cast<size_t>(ranks - 1)) {
    object.Refuse("links", fmt::format("expected one for each pair of the {} ranks", ranks));
  }
  LinkTable links(ranks, {0, kGiga, 0, Mover::kEngine});
  for (const JsonObject& link : list) {
    LinkCost cost;
    cost.latency_s = NumberAtLeast(link, "latency_us", 0) / kMicrosPerSecond;
    cost.setup_s = NumberAtLeast(link, "setup_us", 0) / kMicrosPerSecond;
    cost.bytes_per_s = NumberAtLeast(link, "bandwidth_gbs", kSlowest) * kGiga;
    const std::string moved_by = link.String("moved_by");
    if (moved_by != "thread" && moved_by != "engine") link.Refuse("moved_by", "expected thread or engine");
    cost.mover = moved_by == "thread" ? Mover::kThread : Mover::kEngine;
    links.Set(static_cast<int>(link.Int("from", 0, ranks - 1)), static_cast<int>(link.Int("to", 0, ranks - 1)), cost);
  }
  if (std::vector<int> hosts = HostsFromJson(object, ranks); !hosts.empty()) links.SetHosts(std::move(hosts));
  return links;
}

}  // namespace

const ClusterCosts& CostProfile::While(int ranks) const {
  CHECK(!active.empty());
  const auto found = active.lower_bound(ranks);
  return found == active.end() ? active.rbegin()->second : found->second;
}

std::string ToJson(const CostProfile& profile) {
  Json measured = Json::array();
  for (const auto& [ranks, costs] : profile.active) {
    Json devices = Json::array();
    for (const DeviceCost& device : costs.devices) devices.push_back(ToJson(device));
    measured.push_back({{"ranks_at_work", ranks},
                        {"start_us", costs.start_s * kMicrosPerSecond},
                        {"end_us", costs.end_s * kMicrosPerSecond},
                        {"devices", std::move(devices)},
                        {"links", ToJson(costs.links)}});
    if (!costs.links.hosts().empty()) measured.back()["hosts"] = costs.links.hosts();
  }
  return Json{{"version", kProfileVersion}, {"key", KeyToJson(profile.key)}, {"measured", std::move(measured)}}.dump(
             1) +
         "\n";
}

CostProfile ParseCostProfile(std::string_view text, const std::string& origin) {
  const Json json = ParseJson(text, origin);
  const JsonObject file(json, origin);
  (void)file.Int("version", kProfileVersion, kProfileVersion);
  CostProfile profile;
  profile.key = KeyFromJson(file);
  const int ranks = profile.key.ranks();
  for (const JsonObject& measured : ObjectsOf(file, "measured")) {
    ClusterCosts costs;
    costs.start_s = NumberAtLeast(measured, "start_us", 0) / kMicrosPerSecond;
    costs.end_s = NumberAtLeast(measured, "end_us", 0) / kMicrosPerSecond;
    for (const JsonObject& device : ObjectsOf(measured, "devices")) costs.devices.push_back(DeviceFromJson(device));
    if (costs.ranks() != ranks) measured.Refuse("devices", fmt::format("expected {}", ranks));
    costs.links = LinksFromJson(measured, ranks);
    profile.active[static_cast<int>(measured.Int("ranks_at_work", 1, ranks))] = std::move(costs);
  }
  if (profile.active.empty()) file.Refuse("measured", "expected at least one measurement");
  return profile;
}

}  // namespace runahead
