#include "plan/cluster.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string_view>

#include "base/file.h"
#include "base/units.h"
#include "plan/cost_profile.h"
#include "plan/profile_key_json.h"
#include "plan/toml.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr double kTera = 1e12;
constexpr int64_t kMostDevices = 4096;
constexpr int64_t kLongestContext = int64_t{1} << 32;
constexpr double kSmallest = 1e-9;  // smallest value of what must be above 0

/// Throws ConfigError naming a key that is not of `known`.
void RefuseOthers(const JsonObject& object, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.json().items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    object.Refuse(key.c_str(), fmt::format("is not known here (known: {})", fmt::join(known, ", ")));
  }
}

double NumberOr(const JsonObject& object, const char* key, double min, double otherwise) {
  return object.Has(key) ? NumberAtLeast(object, key, min) : otherwise;
}

double Share(const JsonObject& object, const char* key, double otherwise) {
  const double share = NumberOr(object, key, kSmallest, otherwise);
  if (share > 1) object.Refuse(key, "expected a share from 0 to 1");
  return share;
}

ClusterDevice DeviceFrom(const JsonObject& object) {
  constexpr double kUsualEfficiency = 0.7;
  RefuseOthers(object, {"name", "count", "host", "own_hosts", "tflops", "efficiency", "attention_efficiency",
                        "memory_gbs", "layer_overhead_us", "profile", "profile_rank", "slowdown"});
  ClusterDevice device;
  device.rates.name = object.String("name");
  device.slowdown = NumberOr(object, "slowdown", 1, 1);
  if (object.Has("profile")) {
    if (object.Has("tflops")) object.Refuse("tflops", "a profile says it already");
    device.profile = object.String("profile");
    if (device.profile.empty()) object.Refuse("profile", "expected the path of a cost profile");
    device.profile_rank = static_cast<int>(object.Int("profile_rank", 0, kMostDevices, 0));
    return device;
  }
  if (!object.Has("tflops")) object.Refuse("tflops", "a device needs this or a profile");
  const double peak = NumberAtLeast(object, "tflops", kSmallest) * kTera;
  const double efficiency = Share(object, "efficiency", kUsualEfficiency);
  device.rates.flops = peak * efficiency;
  device.rates.attention_flops = peak * Share(object, "attention_efficiency", efficiency);
  device.rates.memory_bytes_per_s = NumberOr(object, "memory_gbs", 0, 0) * kGiga;
  device.rates.layer_overhead_s = NumberOr(object, "layer_overhead_us", 0, 0) / kMicrosPerSecond;
  return device;
}

LinkCost LinkFrom(const JsonObject& object) {
  LinkCost link;
  link.bytes_per_s = NumberAtLeast(object, "bandwidth_gbs", kSmallest) * kGiga;
  link.latency_s = NumberOr(object, "latency_us", 0, 0) / kMicrosPerSecond;
  link.setup_s = NumberOr(object, "setup_us", 0, 0) / kMicrosPerSecond;
  return link;
}

Sharing SharingFrom(const JsonObject& object) {
  const std::string text = object.String("sharing", "ports");
  if (text == "pairs") return Sharing::kPairs;
  if (text == "ports") return Sharing::kPorts;
  if (text == "bus") return Sharing::kBus;
  object.Refuse("sharing", "expected pairs, ports or bus");
}

std::vector<int64_t> ContextsFrom(const JsonObject& file) {
  const Json& list = file.At("contexts");
  if (!list.is_array() || list.empty()) file.Refuse("contexts", "expected a list of token counts");
  std::vector<int64_t> contexts;
  for (const Json& value : list) {
    const bool fits = value.is_number_integer() && value.get<double>() >= 1 &&
                      value.get<double>() <= static_cast<double>(kLongestContext);
    if (!fits) file.Refuse("contexts", fmt::format("expected integers from 1 to {}", kLongestContext));
    contexts.push_back(value.get<int64_t>());
  }
  return contexts;
}

/// Links of a host, of hosts, and of single pairs, in this order.
LinkTable LinksFrom(const JsonObject& file, const std::vector<int>& hosts) {
  const auto ranks = static_cast<int>(hosts.size());
  const bool several_hosts = std::any_of(hosts.begin(), hosts.end(), [&](int host) { return host != hosts.front(); });
  const bool inside = [&] {
    std::vector<int> sorted = hosts;
    std::sort(sorted.begin(), sorted.end());
    return std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end();
  }();
  LinkCost network{0, kGiga, 0, Mover::kEngine};
  if (several_hosts || file.Has("network")) {
    const JsonObject object = file.Object("network");
    RefuseOthers(object, {"bandwidth_gbs", "latency_us", "setup_us"});
    network = LinkFrom(object);
  }
  LinkTable links(ranks, network);
  if (inside || file.Has("links")) {
    const JsonObject object = file.Object("links");
    RefuseOthers(object, {"bandwidth_gbs", "latency_us", "setup_us", "sharing"});
    const LinkCost link = LinkFrom(object);
    links = LinkTable(ranks, link, SharingFrom(object));
    for (int from = 0; several_hosts && from < ranks; ++from) {
      for (int to = 0; to < ranks; ++to) {
        const bool same = hosts[static_cast<size_t>(from)] == hosts[static_cast<size_t>(to)];
        if (!same) links.Set(from, to, network);
      }
    }
  }
  links.SetHosts(hosts);
  if (!file.Has("link")) return links;
  for (const JsonObject& object : ObjectsOf(file, "link")) {
    RefuseOthers(object, {"from", "to", "bandwidth_gbs", "latency_us", "setup_us"});
    const int from = static_cast<int>(object.Int("from", 0, ranks - 1));
    const int to = static_cast<int>(object.Int("to", 0, ranks - 1));
    if (from == to) object.Refuse("to", "expected another rank than `from`");
    links.Set(from, to, LinkFrom(object));
  }
  return links;
}

}  // namespace

Cluster ParseCluster(std::string_view text, const std::string& origin) {
  const Json json = ParseToml(text, origin);
  const JsonObject file(json, origin);
  RefuseOthers(file, {"model", "dtype", "contexts", "devices", "links", "network", "link"});
  Cluster cluster;
  cluster.origin = origin;
  cluster.model = file.String("model");
  cluster.dtype = file.String("dtype", "bf16");
  cluster.contexts = ContextsFrom(file);
  std::map<std::string, int> host_of_name;
  std::vector<int> hosts;
  for (const JsonObject& object : ObjectsOf(file, "devices")) {
    const ClusterDevice device = DeviceFrom(object);
    const int64_t count = object.Int("count", 1, kMostDevices, 1);
    const bool own_hosts = object.Bool("own_hosts", false);
    if (own_hosts && object.Has("host")) object.Refuse("host", "own_hosts gives each device its own");
    if (static_cast<int64_t>(hosts.size()) + count > kMostDevices) {
      file.Refuse("devices", fmt::format("expected 1 to {} in all", kMostDevices));
    }
    for (int64_t i = 0; i < count; ++i) {
      const std::string host = own_hosts ? fmt::format("host of rank {}", hosts.size()) : object.String("host", "");
      hosts.push_back(host_of_name.emplace(host, static_cast<int>(host_of_name.size())).first->second);
      cluster.devices.push_back(device);
    }
  }
  if (hosts.empty()) file.Refuse("devices", fmt::format("expected 1 to {} in all", kMostDevices));
  cluster.links = LinksFrom(file, hosts);
  return cluster;
}

ClusterCosts Cluster::CostsFor(const WorkShape& shape, const std::filesystem::path& folder) const {
  ClusterCosts costs;
  costs.links = links;
  std::map<std::string, CostProfile> profiles;  // key: path
  for (const ClusterDevice& device : devices) {
    if (device.profile.empty()) {
      costs.devices.push_back(CostFromRates(shape, device.rates).Slowed(device.slowdown));
      continue;
    }
    const std::string path = (folder / device.profile).string();
    auto known = profiles.find(path);
    if (known == profiles.end()) known = profiles.emplace(path, ParseCostProfile(ReadFile(path), path)).first;
    const CostProfile& profile = known->second;
    if (profile.key.model != shape.ToString()) {
      throw ConfigError(fmt::format("{}: profile: {} was measured for '{}', the model is '{}'", origin, path,
                                    profile.key.model, shape.ToString()));
    }
    if (device.profile_rank >= profile.key.ranks()) {
      throw ConfigError(fmt::format("{}: profile_rank: {} has {} devices, got {}", origin, path, profile.key.ranks(),
                                    device.profile_rank));
    }
    // Devices of a cluster do not share a memory: measured while it worked alone.
    DeviceCost cost = profile.While(1).devices[static_cast<size_t>(device.profile_rank)].Slowed(device.slowdown);
    cost.name = device.rates.name;
    costs.devices.push_back(std::move(cost));
  }
  return costs;
}

}  // namespace runahead
