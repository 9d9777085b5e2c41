#include "tune/profile_samples.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "plan/counters.h"

namespace runahead {
namespace {

void Append(const Means& from, Means& to) { to.insert(to.end(), from.begin(), from.end()); }

void Append(const StretchMeans& from, StretchMeans& to) {
  Append(from.before_s, to.before_s);
  Append(from.layer_s, to.layer_s);
  Append(from.finish_s, to.finish_s);
}

void Append(const LinkSamples& from, LinkSamples& to) {
  to.mover = from.mover;
  to.many = from.many;
  to.row_bytes = from.row_bytes;
  Append(from.one_row, to.one_row);
  Append(from.many_rows, to.many_rows);
  Append(from.waking, to.waking);
}

/// A model of one layer has no stretch between two exchanges; nothing will ask for it.
double LayerSeconds(const StretchMeans& seen) { return Usual(seen.layer_s.empty() ? seen.before_s : seen.layer_s); }

/// What was seen of all ranks of one name.
DeviceSamples SeenOf(const std::string& name, const std::vector<std::string>& names, const GroupSamples& group) {
  DeviceSamples seen;
  for (const auto& [rank, samples] : group.devices) {
    if (names[static_cast<size_t>(rank)] == name) Append(samples, seen);
  }
  CHECK(!seen.layers.empty());
  return seen;
}

DeviceCost FitDevice(const std::string& name, const WorkShape& shape, const DeviceSamples& seen, int64_t longest) {
  DeviceCost device;
  device.name = name;
  const int64_t window = shape.window(0);
  double pair_s = 0;  // time of a pair in the largest chunk so far, s; the longest prompt's chunk has no other
  for (const LayerSamples& layer : seen.layers) {
    const auto pairs = static_cast<double>(CausalPairs(0, layer.rows, window));
    const double at_start = LayerSeconds(layer.at_start);
    if (layer.far > 0) {
      const auto more = static_cast<double>(CausalPairs(layer.far, layer.far + layer.rows, window)) - pairs;
      if (more > 0) pair_s = std::max(0.0, (LayerSeconds(layer.at_end) - at_start) / more);
    }
    device.knots.push_back(
        {layer.rows, Usual(layer.at_start.before_s), std::max(0.0, at_start - pair_s * pairs), pair_s});
  }
  const LayerSamples& half_seen = seen.layers[seen.dense_size];
  const RowCost& half = device.knots[seen.dense_size];
  const double masked = static_cast<double>(half.rows * longest - CausalPairs(0, half.rows, window)) * half.pair_s;
  const double dense_s = LayerSeconds(seen.dense) - LayerSeconds(half_seen.at_start);
  if (masked > 0) device.masked_pair = std::max(0.0, dense_s / masked);
  const auto more = static_cast<double>(CausalPairs(longest - 1, longest, shape.window(shape.layers - 1)) - 1);
  const double first_s = Usual(seen.first_row.finish_s);
  const double last_s = Usual(seen.last_row.finish_s);
  device.finish_pair_s = more > 0 ? std::max(0.0, (last_s - first_s) / more) : 0;
  device.finish_s = std::max(0.0, first_s - device.finish_pair_s);
  return device;
}

}  // namespace

void Append(const Stretches& run, double unit_s, StretchMeans& to) {
  const auto add = [unit_s](const std::vector<double>& seconds, Means& means) {
    if (!seconds.empty()) means.push_back(TypicalSeconds(seconds) / unit_s);
  };
  add(run.before_s, to.before_s);
  add(run.layer_s, to.layer_s);
  add(run.finish_s, to.finish_s);
}

void Append(const DeviceSamples& from, DeviceSamples& to) {
  if (to.layers.empty()) {
    to = from;
    return;
  }
  CHECK_EQ(to.layers.size(), from.layers.size());
  for (size_t i = 0; i < from.layers.size(); ++i) {
    Append(from.layers[i].at_start, to.layers[i].at_start);
    Append(from.layers[i].at_end, to.layers[i].at_end);
  }
  Append(from.gauge_s, to.gauge_s);
  Append(from.dense, to.dense);
  Append(from.first_row, to.first_row);
  Append(from.last_row, to.last_row);
}

void Append(const ProfileSamples& from, ProfileSamples& to) {
  for (const auto& [active, group] : from) {
    GroupSamples& seen = to[active];
    for (const auto& [rank, device] : group.devices) Append(device, seen.devices[rank]);
    Append(group.links, seen.links);
    Append(group.ends.start_s, seen.ends.start_s);
    Append(group.ends.end_s, seen.ends.end_s);
  }
}

double Usual(Means means) {
  CHECK(!means.empty());
  const auto middle = means.begin() + static_cast<std::ptrdiff_t>(means.size() / 2);
  std::nth_element(means.begin(), middle, means.end());
  return *middle;
}

double TypicalSeconds(std::vector<double> seconds) {
  constexpr size_t kTenth = 10;
  CHECK(!seconds.empty());
  std::sort(seconds.begin(), seconds.end());
  const auto cut = static_cast<std::ptrdiff_t>(seconds.size() / kTenth);
  const double sum = std::accumulate(seconds.begin() + cut, seconds.end() - cut, 0.0);
  return sum / static_cast<double>(seconds.size() - 2 * static_cast<size_t>(cut));
}

std::vector<DeviceCost> FitDevices(const std::vector<std::string>& names, const WorkShape& shape,
                                   const GroupSamples& seen, int64_t longest) {
  std::vector<DeviceCost> costs;
  for (const std::string& name : names) {
    const DeviceSamples device = SeenOf(name, names, seen);
    const double unit_s = device.gauge_s.empty() ? 1 : Usual(device.gauge_s);
    costs.push_back(FitDevice(name, shape, device, longest).Slowed(unit_s));
  }
  return costs;
}

LinkCost FitLink(const LinkSamples& seen) {
  LinkCost link;
  link.mover = seen.mover;
  link.setup_s = Usual(seen.one_row);
  link.latency_s = Usual(seen.waking);
  // Rows of few heads may take no longer than the set-up, which is not known to the last tenth either.
  constexpr double kLeastShare = 0.1;
  const double many_s = Usual(seen.many_rows);
  const double seconds = std::max(many_s - link.setup_s, kLeastShare * many_s);
  link.bytes_per_s = static_cast<double>(seen.row_bytes) * static_cast<double>(seen.many - 1) / seconds;
  return link;
}

LinkCost FitHop(const HopSamples& seen, Mover mover) {
  constexpr double kLeastShare = 0.1;  // of a round, what goes there takes, and more rows more, at least
  const double back_s = Usual(seen.one_row) / 2;
  const auto there_s = [&](const std::vector<double>& rounds) {
    return std::max(Usual(rounds) - back_s, kLeastShare * Usual(rounds));
  };
  const double few_s = there_s(seen.few_rows);
  const double many_s = there_s(seen.many_rows);
  const auto more = static_cast<double>(seen.many - seen.few) * static_cast<double>(seen.row_bytes);
  LinkCost link;
  link.mover = mover;
  link.bytes_per_s = more / std::max(many_s - few_s, kLeastShare * many_s);
  const double moving_s = static_cast<double>(seen.few) * static_cast<double>(seen.row_bytes) / link.bytes_per_s;
  link.latency_s = std::max(back_s, few_s - moving_s);
  return link;
}

}  // namespace runahead
