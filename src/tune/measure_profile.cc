#include "tune/measure_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>

#include "base/undisturbed.h"
#include "engine/session_state.h"
#include "tune/probe.h"

namespace runahead {
namespace {

constexpr int kLastProbedLayer = 6;  // layer whose exchange ends a short run
constexpr int64_t kManyRows = 512;   // rows from which on CPU ranks run fewer layers
constexpr int kLastProbedOfMany = 2;
constexpr int64_t kGaugeRows = 512;
constexpr int64_t kStartTokens = 16;  // length of the prompts that show what a phase costs besides its layers
constexpr int kStartRuns = 3;
constexpr double kPatienceS = 2;  // longest wait, s, for a measurement in which stolen time would count

/// Rows whose costs are measured: close where devices are least linear. GPUs go up by steps: by the number of tiles
/// that all their multiprocessors work on at a time.
std::vector<int64_t> RowsToMeasure(int64_t longest, bool gpus) {
  constexpr int64_t kStep = 256;
  constexpr int64_t kMostSteps = 16;
  std::set<int64_t> rows{longest};
  for (int64_t count = 1; count < longest; count *= count < 256 ? 4 : 2) rows.insert(count);
  for (int64_t steps = 1; gpus && steps <= kMostSteps && steps * kStep < longest; ++steps) rows.insert(steps * kStep);
  return {rows.begin(), rows.end()};
}

/// Whether what a hypervisor takes from this machine's processors tells in the times of the ranks' compute.
bool StolenTimeCounts(EngineState& engine) {
  bool counts = false;
  const int first = engine.first_rank();
  for (int rank = first; rank < first + engine.local_ranks(); ++rank) {
    counts |= engine.group() != nullptr || engine.rank(rank).work_clock() != ThreadSeconds;
  }
  return counts && !engine.on_gpus();
}

/// Ranks that are measured while they work together.
class Group {
 public:
  Group(HeldEngine& held, std::vector<int> members, int64_t longest)
      : members_(std::move(members)),
        longest_(longest),
        layers_(held.engine().decoder().spec().layers),
        gauged_(!held.engine().on_gpus()),
        patience_s_(StolenTimeCounts(held.engine()) ? kPatienceS : 0),
        link_patience_s_(held.engine().on_gpus() ? 0 : kPatienceS),
        rows_(RowsToMeasure(longest, held.engine().on_gpus())),
        probe_(held, members_, longest) {
    if (members_.size() > 1 && held.engine().group() == nullptr) links_.emplace(held, members_, longest);
  }

  [[nodiscard]] int size() const { return static_cast<int>(members_.size()); }
  [[nodiscard]] const std::vector<int>& members() const { return members_; }

  /// Plans, and leaves the rows that later chunks read.
  void WarmUp(HeldEngine& held) {
    probe_.Run(held, {0, longest_, LastProbed(1)}, 1, nullptr);
    if (links_) (void)links_->Measure(held);  // touches the memory
  }

  /// Every size once, by member.
  std::vector<DeviceSamples> MeasureDevices(HeldEngine& held) {
    std::vector<DeviceSamples> samples(members_.size());
    for (DeviceSamples& device : samples) {
      for (const int64_t rows : rows_) {
        if (rows <= longest_ / 2) device.dense_size = device.layers.size();
        device.layers.push_back({rows, longest_ - rows, {}, {}});
      }
    }
    std::vector<double> before = GaugeSeconds(held);
    const auto measure = [&](const ShortRun& run, const auto& part) {
      const std::vector<Stretches> seen = Run(held, run);
      const std::vector<double> after = GaugeSeconds(held);
      for (size_t i = 0; i < members_.size(); ++i) {
        Append(seen[i], gauged_ ? (before[i] + after[i]) / 2 : 1, part(samples[i]));
        if (gauged_) samples[i].gauge_s.push_back(after[i]);
      }
      before = after;
    };
    for (size_t i = 0; i < rows_.size(); ++i) {
      const int last = LastProbed(rows_[i]);
      measure({0, rows_[i], last}, [&](DeviceSamples& device) -> StretchMeans& { return device.layers[i].at_start; });
      if (rows_[i] == longest_) continue;
      measure({longest_ - rows_[i], longest_, last},
              [&](DeviceSamples& device) -> StretchMeans& { return device.layers[i].at_end; });
    }
    const size_t half = samples.front().dense_size;
    measure({0, rows_[half], LastProbed(rows_[half]), true},
            [](DeviceSamples& device) -> StretchMeans& { return device.dense; });
    measure({0, 1, layers_}, [](DeviceSamples& device) -> StretchMeans& { return device.first_row; });
    measure({longest_ - 1, longest_, layers_},
            [](DeviceSamples& device) -> StretchMeans& { return device.last_row; });
    return samples;
  }

  LinkSamples MeasureLinks(HeldEngine& held) {
    if (!links_) return {};
    return LeastDisturbed([&] { return links_->Measure(held); }, link_patience_s_).value;
  }

 private:
  /// Long chunks' layers are long enough to be few: the pace is the gauge's the better, the shorter the run.
  [[nodiscard]] int LastProbed(int64_t rows) const {
    return std::min(layers_ - 1, gauged_ && rows >= kManyRows ? kLastProbedOfMany : kLastProbedLayer);
  }

  std::vector<Stretches> Run(HeldEngine& held, const ShortRun& run) {
    const auto take = [&] {
      std::vector<Stretches> seen(members_.size());
      probe_.Run(held, run, 1, &seen);
      return seen;
    };
    return LeastDisturbed(take, patience_s_).value;
  }

  /// Seconds that some rows in the middle of the longest prompt take each member now. None on GPUs, which nobody else
  /// uses.
  std::vector<double> GaugeSeconds(HeldEngine& held) {
    std::vector<double> gauges;
    if (!gauged_) return gauges;
    const int64_t begin = longest_ / 2;
    const int64_t end = std::min(longest_, begin + kGaugeRows);
    for (const Stretches& seen : Run(held, {begin, end, std::min(layers_ - 1, kLastProbedOfMany)})) {
      gauges.push_back(TypicalSeconds(seen.layer_s.empty() ? seen.before_s : seen.layer_s));
    }
    return gauges;
  }

  std::vector<int> members_;
  int64_t longest_;
  int layers_;
  bool gauged_;
  double patience_s_;  // longest wait for an undisturbed run, s
  double link_patience_s_;
  std::vector<int64_t> rows_;
  Probe probe_;
  std::optional<LinkProbe> links_;
};

class ProfileRun {
 public:
  ProfileRun(std::shared_ptr<EngineState> engine, int64_t longest)
      : engine_(std::move(engine)),
        planner_(engine_->Hold().planner()),
        longest_(std::clamp<int64_t>(longest, 2, engine_->decoder().spec().max_positions)),
        names_(NamesOf(*engine_, planner_.key().devices)),
        session_(engine_, std::max<int64_t>(kStartTokens, engine_->ranks())) {
    HeldEngine held = engine_->Hold();
    MakeGroups(held);
    if (engine_->group() != nullptr) hops_.emplace(held, longest_);
    for (const auto& group : groups_) group->WarmUp(held);
  }

  ProfileSamples Measure() {
    ProfileSamples samples;
    {
      HeldEngine held = engine_->Hold();
      for (const auto& group : groups_) {
        GroupSamples& seen = samples[group->size()];
        const std::vector<DeviceSamples> devices = group->MeasureDevices(held);
        for (size_t i = 0; i < devices.size(); ++i) Append(devices[i], seen.devices[group->members()[i]]);
        if (seen.links.one_row.empty()) seen.links = group->MeasureLinks(held);
      }
      if (hops_) hop_samples_.push_back(hops_->Measure(held));
    }
    for (auto& [active, seen] : samples) {
      seen.ends = LeastDisturbed([&, count = active] { return MeasureEnds(count); }, kPatienceS).value;
    }
    return samples;
  }

  [[nodiscard]] CostProfile Fit(const ProfileSamples& samples) const {
    CostProfile profile;
    profile.key = planner_.key();
    for (const auto& [active, seen] : samples) {
      ClusterCosts costs;
      costs.devices = FitDevices(names_, planner_.shape(), seen, longest_);
      // One rank alone has no links: those of several stand in.
      const LinkSamples& links = active > 1 ? seen.links : samples.rbegin()->second.links;
      const LinkCost none{0, 1e9, 0, Mover::kThread};
      costs.links = LinkTable(engine_->ranks(), links.one_row.empty() ? none : FitLink(links));
      if (hops_) costs.links = FitHops(*engine_, hop_samples_);
      costs.start_s = Usual(seen.ends.start_s);
      costs.end_s = Usual(seen.ends.end_s);
      profile.active[active] = std::move(costs);
    }
    return profile;
  }

 private:
  /// What is measured of one rank holds for those of its name. Of several processes no two ranks are taken for one.
  [[nodiscard]] static std::vector<std::string> NamesOf(const EngineState& engine, std::vector<std::string> devices) {
    for (size_t rank = 0; engine.group() != nullptr && rank < devices.size(); ++rank) {
      devices[rank] += fmt::format(", rank {}", rank);
    }
    return devices;
  }

  /// Groups of 1, 2, 4, ... and all ranks: of each size so many that every rank is in one. Of equal GPUs, which
  /// nothing else uses, one is enough for each name.
  void MakeGroups(HeldEngine& held) {
    std::vector<int> counts;
    for (int count = 1; count < engine_->ranks(); count *= 2) counts.push_back(count);
    counts.push_back(engine_->ranks());
    for (const int count : counts) {
      std::set<std::string> named;
      for (int first = 0; first < engine_->ranks(); first += count) {
        std::vector<int> members(static_cast<size_t>(count));
        // The last group takes some of the ranks before it where they do not come out even.
        std::iota(members.begin(), members.end(), std::min(first, engine_->ranks() - count));
        bool news = !engine_->on_gpus();
        for (const int member : members) news = named.insert(names_[static_cast<size_t>(member)]).second || news;
        if (news) groups_.push_back(std::make_unique<Group>(held, std::move(members), longest_));
      }
    }
  }

  /// How long a phase of `count` ranks takes to begin and to end, from a short prompt's timeline.
  EndSamples MeasureEnds(int count) {
    const int64_t tokens = std::max<int64_t>(std::min(kStartTokens, longest_), count);
    PrefillOptions options;
    options.partition.kind = PartitionKind::kEven;
    options.ranks = count;
    options.record_timeline = true;
    const std::vector<int32_t> prompt(static_cast<size_t>(tokens), 0);
    std::vector<double> starts;
    std::vector<double> ends;
    for (int run = 0; run < kStartRuns; ++run) {
      const PrefillReport report = session_.Prefill(prompt, options);
      if (run == 0) continue;
      double last = 0;
      for (const TimelineEvent& event : report.timeline) {
        last = std::max(last, event.end_ms);
        if (event.layer == 0 && event.activity == Activity::kCompute) starts.push_back(event.begin_ms / 1e3);
      }
      ends.push_back(std::max(0.0, report.ttft_ms - last) / 1e3);
    }
    return {{TypicalSeconds(starts)}, {TypicalSeconds(ends)}};
  }

  std::shared_ptr<EngineState> engine_;
  PhasePlanner planner_;  // planner as it is before anything is measured
  int64_t longest_;
  std::vector<std::string> names_;  // [ranks]
  SessionState session_;
  std::optional<HopProbe> hops_;  // of several processes
  std::vector<HopsSeen> hop_samples_;
  std::vector<std::unique_ptr<Group>> groups_;
};

}  // namespace

CostProfile MeasureProfile(const std::shared_ptr<EngineState>& engine, int64_t longest, int repeats,
                           const std::function<void(double)>& on_repeat) {
  ProfileRun run(engine, longest);
  ProfileSamples samples;
  for (int repeat = 1; repeat <= repeats; ++repeat) {
    Append(run.Measure(), samples);
    on_repeat(static_cast<double>(repeat) / repeats);
  }
  return run.Fit(samples);
}

}  // namespace runahead
