#include "engine/measure_profile.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "engine/probe.h"
#include "engine/session_state.h"

namespace runahead {
namespace {

constexpr int kLastProbedLayer = 6;   // whose exchange ends a short run
constexpr int64_t kStartTokens = 16;  // of the prompts that show what a phase costs besides its layers

/// Rows whose costs are measured: close where devices are least linear.
std::vector<int64_t> RowsToMeasure(int64_t longest) {
  std::vector<int64_t> rows;
  for (int64_t count = 1; count < longest; count *= count < 256 ? 4 : 2) rows.push_back(count);
  rows.push_back(longest);
  return rows;
}

/// A device's layers as they were seen: at the start of a prompt, and at the end of a long one.
struct LayerSamples {
  int64_t rows = 0;
  int64_t far = 0;  // where the chunk at the end begins; 0: there is none
  Stretches at_start;
  Stretches at_end;
};

/// What was seen of one device.
struct DeviceSamples {
  std::vector<LayerSamples> layers;  // by rows
  Stretches first_row;               // alone, to the end of the pass
  Stretches last_row;                // of a long prompt
};

void Append(const std::vector<double>& from, std::vector<double>& to) {
  to.insert(to.end(), from.begin(), from.end());
}
void Append(const Stretches& from, Stretches& to) {
  Append(from.before_s, to.before_s);
  Append(from.layer_s, to.layer_s);
  Append(from.finish_s, to.finish_s);
}
void Append(const DeviceSamples& from, DeviceSamples& to) {
  for (size_t i = 0; i < from.layers.size(); ++i) {
    Append(from.layers[i].at_start, to.layers[i].at_start);
    Append(from.layers[i].at_end, to.layers[i].at_end);
  }
  Append(from.first_row, to.first_row);
  Append(from.last_row, to.last_row);
}

/// A model of one layer has no stretch between two exchanges; nothing will ask for it.
double LayerSeconds(const Stretches& seen) {
  return TypicalSeconds(seen.layer_s.empty() ? seen.before_s : seen.layer_s);
}

/// Splits what was seen into parts: attention is what grows with the rows before the chunk.
DeviceCost Fit(const std::string& name, const WorkShape& shape, const DeviceSamples& seen, int64_t longest) {
  DeviceCost device;
  device.name = name;
  const int64_t window = shape.window(0);
  double pair_s = 0;  // of the largest chunk so far
  for (const LayerSamples& layer : seen.layers) {
    const auto pairs = static_cast<double>(CausalPairs(0, layer.rows, window));
    const double at_start = LayerSeconds(layer.at_start);
    if (layer.far > 0) {
      const auto more = static_cast<double>(CausalPairs(layer.far, layer.far + layer.rows, window)) - pairs;
      if (more > 0) pair_s = std::max(0.0, (LayerSeconds(layer.at_end) - at_start) / more);
    } else if (device.knots.size() > 1) {  // all else grows as it did up to here
      pair_s = std::max(0.0, (at_start - device.At(layer.rows).layer_s) / pairs);
    }
    device.knots.push_back(
        {layer.rows, TypicalSeconds(layer.at_start.before_s), std::max(0.0, at_start - pair_s * pairs), pair_s});
  }
  const auto more = static_cast<double>(CausalPairs(longest - 1, longest, shape.window(shape.layers - 1)) - 1);
  const double first_s = TypicalSeconds(seen.first_row.finish_s);
  const double last_s = TypicalSeconds(seen.last_row.finish_s);
  device.finish_pair_s = more > 0 ? std::max(0.0, (last_s - first_s) / more) : 0;
  device.finish_s = std::max(0.0, first_s - device.finish_pair_s);
  return device;
}

/// Ranks that are measured while they work together.
class Group {
 public:
  Group(EngineState& engine, std::vector<int> members, int64_t longest)
      : members_(std::move(members)),
        longest_(longest),
        layers_(engine.decoder().spec().layers),
        rows_(RowsToMeasure(longest)),
        probe_(std::make_unique<Probe>(engine, members_, longest)),
        samples_(members_.size()) {
    for (DeviceSamples& device : samples_) {
      for (const int64_t rows : rows_) device.layers.push_back({rows, longest - rows, {}, {}});
    }
  }

  [[nodiscard]] int size() const { return static_cast<int>(members_.size()); }
  [[nodiscard]] const std::vector<int>& members() const { return members_; }
  [[nodiscard]] const std::vector<DeviceSamples>& samples() const { return samples_; }  // of each member

  /// Makes room, plans, and leaves the rows that later chunks read.
  void WarmUp() { probe_->Run({0, longest_, LastProbed()}, 1, nullptr); }

  /// Every size once, so that a drift of the machine meets all of them.
  void MeasureOnce() {
    for (size_t i = 0; i < rows_.size(); ++i) {
      const int64_t far = longest_ - rows_[i];
      Measure({0, rows_[i], LastProbed()},
              [i](DeviceSamples& device) -> Stretches& { return device.layers[i].at_start; });
      if (far == 0) continue;
      Measure({far, longest_, LastProbed()},
              [i](DeviceSamples& device) -> Stretches& { return device.layers[i].at_end; });
    }
    Measure({0, 1, layers_}, [](DeviceSamples& device) -> Stretches& { return device.first_row; });
    Measure({longest_ - 1, longest_, layers_}, [](DeviceSamples& device) -> Stretches& { return device.last_row; });
  }

 private:
  [[nodiscard]] int LastProbed() const { return std::min(layers_ - 1, kLastProbedLayer); }

  void Measure(const ShortRun& run, const std::function<Stretches&(DeviceSamples&)>& part) {
    std::vector<Stretches> stretches(members_.size());
    probe_->Run(run, 1, &stretches);
    for (size_t i = 0; i < members_.size(); ++i) Append(stretches[i], part(samples_[i]));
  }

  std::vector<int> members_;
  int64_t longest_;
  int layers_;
  std::vector<int64_t> rows_;
  std::unique_ptr<Probe> probe_;
  std::vector<DeviceSamples> samples_;
};

class ProfileRun {
 public:
  ProfileRun(std::shared_ptr<EngineState> engine, const ProfileOptions& options)
      : engine_(std::move(engine)),
        options_(options),
        shape_(engine_->planner().shape()),
        key_(engine_->planner().key()),
        longest_(std::clamp<int64_t>(options.longest, 2, engine_->decoder().spec().max_positions)) {}

  CostProfile Run() {
    std::vector<Group> groups;
    {
      const std::lock_guard lock(engine_->busy());
      groups = MakeGroups();
      for (Group& group : groups) group.WarmUp();
      for (int round = 0; round < options_.repeats; ++round) {
        for (Group& group : groups) group.MeasureOnce();
        if (options_.on_progress) options_.on_progress(0.9 * (round + 1) / options_.repeats);
      }
    }
    CostProfile profile;
    profile.key = key_;
    for (const Group& group : groups) {
      if (!profile.active.contains(group.size())) profile.active[group.size()] = CostsOf(groups, group);
    }
    // One rank alone has no links: those of several stand in.
    if (key_.ranks() > 1) profile.active.at(1).links = profile.active.at(key_.ranks()).links;
    return profile;
  }

 private:
  /// 1, 2, 4, ... and all ranks, each time so many groups that every device's name is in one.
  [[nodiscard]] std::vector<Group> MakeGroups() const {
    std::vector<int> counts;
    for (int count = 1; count < key_.ranks(); count *= 2) counts.push_back(count);
    counts.push_back(key_.ranks());
    std::vector<Group> groups;
    for (const int count : counts) {
      std::set<std::string> named;
      for (int first = 0; first < key_.ranks(); first += count) {
        // The last group takes some of the ranks before it.
        std::vector<int> members(static_cast<size_t>(count));
        std::iota(members.begin(), members.end(), std::min(first, key_.ranks() - count));
        bool news = false;
        for (const int member : members) news = named.insert(NameOf(member)).second || news;
        if (news) groups.emplace_back(*engine_, std::move(members), longest_);
      }
    }
    return groups;
  }

  /// Of all ranks, from what was seen in the groups of this one's size.
  [[nodiscard]] ClusterCosts CostsOf(const std::vector<Group>& groups, const Group& first) const {
    std::map<std::string, DeviceSamples> seen;  // by the device's name: namesakes cost the same
    for (const Group& group : groups) {
      if (group.size() != first.size()) continue;
      for (size_t i = 0; i < group.members().size(); ++i) {
        const auto [known, is_new] = seen.try_emplace(NameOf(group.members()[i]), group.samples()[i]);
        if (!is_new) Append(group.samples()[i], known->second);
      }
    }
    ClusterCosts costs;
    for (int rank = 0; rank < key_.ranks(); ++rank) {
      costs.devices.push_back(Fit(NameOf(rank), shape_, seen.at(NameOf(rank)), longest_));
    }
    LinkCost link{0, 1e9, 0, Mover::kThread};
    if (first.size() > 1) link = MeasureLinks(*engine_, first.members(), longest_);
    costs.links = LinkTable(key_.ranks(), link);
    MeasureEnds(first.size(), costs);
    return costs;
  }

  [[nodiscard]] const std::string& NameOf(int rank) const { return key_.devices[static_cast<size_t>(rank)]; }

  /// How long a phase of `count` ranks takes to begin and to end, from a short prompt's timeline.
  void MeasureEnds(int count, ClusterCosts& costs) const {
    const int64_t tokens = std::max<int64_t>(std::min(kStartTokens, longest_), count);
    SessionState session(engine_, std::max(tokens, longest_));
    PrefillOptions options;
    options.partition.kind = PartitionKind::kEven;
    options.ranks = count;
    options.record_timeline = true;
    const std::vector<int32_t> prompt(static_cast<size_t>(tokens), 0);
    std::vector<double> starts;
    std::vector<double> ends;
    for (int repeat = 0; repeat < 2 * options_.repeats; ++repeat) {
      const PrefillReport report = session.Prefill(prompt, options);
      if (repeat == 0) continue;
      double last = 0;
      for (const TimelineEvent& event : report.timeline) {
        last = std::max(last, event.end_ms);
        if (event.layer == 0 && event.activity == Activity::kCompute) starts.push_back(event.begin_ms / 1e3);
      }
      ends.push_back(std::max(0.0, report.ttft_ms - last) / 1e3);
    }
    costs.start_s = TypicalSeconds(starts);
    costs.end_s = TypicalSeconds(ends);
  }

  std::shared_ptr<EngineState> engine_;
  const ProfileOptions& options_;
  WorkShape shape_;
  ProfileKey key_;
  int64_t longest_;
};

}  // namespace

double TypicalSeconds(std::vector<double> seconds) {
  constexpr size_t kTenth = 10;
  CHECK(!seconds.empty());
  std::sort(seconds.begin(), seconds.end());
  const auto cut = static_cast<std::ptrdiff_t>(seconds.size() / kTenth);
  const double sum = std::accumulate(seconds.begin() + cut, seconds.end() - cut, 0.0);
  return sum / static_cast<double>(seconds.size() - 2 * static_cast<size_t>(cut));
}

CostProfile MeasureProfile(const std::shared_ptr<EngineState>& engine, const ProfileOptions& options) {
  return ProfileRun(engine, options).Run();
}

}  // namespace runahead
