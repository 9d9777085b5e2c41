#include "engine/measure_profile.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <numeric>

#include "engine/session_state.h"
#include "prefill/slow_exchange.h"

namespace runahead {
namespace {

constexpr int kLastProbedLayer = 4;       // whose exchange ends a short run
constexpr int64_t kStartTokens = 16;      // of the prompts that show what a phase costs besides its layers
constexpr double kEnoughSeconds = 0.5;    // of short runs of one kind; fewer repeats will do then
constexpr int kFewestRepeats = 3;

double SecondsBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// Notes when each layer's exchange begins, and ends the pass there once it has seen enough of them.
class ProbeExchange final : public PrefillExchange {
 public:
  explicit ProbeExchange(int last_layer) : last_layer_(last_layer) {}

  void Start() override { stamps_ = {Clock::now()}; }
  Status LayerReady(int layer, Stream& stream) override {
    stream.Synchronize();
    stamps_.push_back(Clock::now());
    return layer == last_layer_ ? Status::Failed("enough layers were seen") : Status::Ok();
  }
  Status Finish() override {
    stamps_.push_back(Clock::now());
    return Status::Ok();
  }
  /// Of the start and of each exchange, and of the end where the pass came to it.
  [[nodiscard]] const std::vector<Clock::time_point>& stamps() const { return stamps_; }

 private:
  int last_layer_;
  std::vector<Clock::time_point> stamps_;
};

/// The chunk [begin, end) up to the exchange of `last_layer`; further than the last layer is to the prompt's end.
struct ShortRun {
  int64_t begin = 0;
  int64_t end = 0;
  int last_layer = 0;
};

/// What one rank saw of a short run: seconds before the first exchange, between two exchanges that have whole layers
/// between them, and after the last one.
struct Stretches {
  std::vector<double> before_s;
  std::vector<double> layer_s;
  std::vector<double> finish_s;
};

/// Some ranks at work at once, each with a cache whose rows are numbers.
class Probe {
 public:
  Probe(EngineState& engine, std::vector<int> members, int64_t longest)
      : engine_(engine), members_(std::move(members)), rope_(engine.RopeFor(longest)) {
    const KvShape shape = engine.decoder().spec().kv_shape(engine.decoder().compute_dtype());
    for (const int member : members_) caches_.emplace_back(engine.rank(member).device(), shape, longest);
    std::vector<std::future<void>> done;
    for (size_t i = 0; i < members_.size(); ++i) {
      done.push_back(engine_.rank(members_[i]).Post([this, i, longest] { Fill(i, longest); }));
    }
    for (std::future<void>& future : done) future.get();
  }

  /// Every member makes the run at the same time, over and over until all have done so often enough.
  std::vector<Stretches> Run(const ShortRun& run, int repeats) {
    std::vector<Stretches> all(members_.size());
    std::barrier together(static_cast<std::ptrdiff_t>(members_.size()));
    std::atomic<size_t> finished{0};
    std::vector<std::future<void>> done;
    for (size_t i = 0; i < members_.size(); ++i) {
      done.push_back(engine_.rank(members_[i]).Post([&, i] {
        Once(i, run, nullptr);  // the first one makes room and plans
        together.arrive_and_wait();
        const auto begin = Clock::now();
        int counted = 0;
        while (finished.load() < members_.size()) {
          Once(i, run, &all[i]);
          ++counted;
          const bool long_enough =
              counted >= kFewestRepeats && SecondsBetween(begin, Clock::now()) > kEnoughSeconds;
          if (counted == repeats || (counted < repeats && long_enough)) {
            ++finished;
            counted = repeats;  // counted once
          }
        }
      }));
    }
    for (std::future<void>& future : done) future.get();
    return all;
  }

 private:
  void Fill(size_t index, int64_t longest) {
    constexpr int kSmallNumber = 0x3c;  // repeated, in every dtype
    const int layers = std::min(engine_.decoder().spec().layers, kLastProbedLayer + 1);
    Rank& rank = engine_.rank(members_[index]);
    for (int layer = 0; layer < layers; ++layer) {
      const KvSpan span = caches_[index].Span(layer, 0, longest);
      const std::vector<std::byte> bytes(span.k.bytes(), std::byte{kSmallNumber});
      rank.device().CopyFromHost(span.k.data(), bytes.data(), bytes.size(), rank.stream());
      rank.device().CopyFromHost(span.v.data(), bytes.data(), bytes.size(), rank.stream());
    }
    rank.stream().Synchronize();
  }

  void Once(size_t index, const ShortRun& run, Stretches* seen) {
    Rank& rank = engine_.rank(members_[index]);
    const Decoder& decoder = engine_.decoder();
    const int64_t rows = run.end - run.begin;
    const int layers = decoder.spec().layers;
    std::vector<int32_t> tokens(static_cast<size_t>(rows));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % static_cast<size_t>(decoder.spec().vocab));
    Workspace& workspace = rank.WorkspaceFor(decoder, rows);
    auto owned = std::make_unique<ProbeExchange>(run.last_layer);
    const ProbeExchange& probe = *owned;
    std::unique_ptr<PrefillExchange> exchange = std::move(owned);
    if (rank.slowdown() > 1) exchange = MakeSlowExchange(std::move(exchange), rank.slowdown());
    exchange->Start();
    const LastLayer last = run.last_layer >= layers ? LastLayer::kLastRow : LastLayer::kKeysAndValues;
    const Status status = decoder.Forward(tokens, run.begin, last, rope_, caches_[index], *exchange, workspace,
                                          rank.ops(), rank.stream());
    rank.stream().Synchronize();
    if (status.ok()) CHECK(exchange->Finish().ok());
    if (seen == nullptr) return;
    const std::vector<Clock::time_point>& stamps = probe.stamps();
    seen->before_s.push_back(SecondsBetween(stamps[0], stamps[1]));
    // Before the last exchange no queries are made; a model of two layers has no other.
    for (int layer = 1; layer <= std::min(run.last_layer, std::max(1, layers - 2)) && layer < layers; ++layer) {
      const auto i = static_cast<size_t>(layer);
      seen->layer_s.push_back(SecondsBetween(stamps[i], stamps[i + 1]));
    }
    if (last == LastLayer::kLastRow) seen->finish_s.push_back(SecondsBetween(stamps[stamps.size() - 2], stamps.back()));
  }

  EngineState& engine_;
  std::vector<int> members_;
  const RopeTable& rope_;
  std::vector<KvCache> caches_;
};

/// Rows whose costs are measured: close where devices are least linear.
std::vector<int64_t> RowsToMeasure(int64_t longest) {
  std::vector<int64_t> rows;
  for (int64_t count = 1; count < longest; count *= count < 256 ? 4 : 2) rows.push_back(count);
  rows.push_back(longest);
  return rows;
}

/// Seconds of a device's layer at the start of a prompt, and behind `far` rows.
struct LayerTimes {
  int64_t rows = 0;
  int64_t far = 0;  // 0: not measured
  double before_s = 0;
  double near_s = 0;
  double far_s = 0;
};

/// Splits what was measured into parts: attention is what grows with the rows before the chunk.
std::vector<RowCost> Fit(const WorkShape& shape, const std::vector<LayerTimes>& times) {
  const int layer = std::min(shape.layers - 1, 1) - 1;  // the first probed stretch attends in layer 0
  const int64_t window = shape.window(std::max(layer, 0));
  std::vector<RowCost> knots;
  double pair_s = 0;
  for (const LayerTimes& time : times) {
    const auto near = static_cast<double>(CausalPairs(0, time.rows, window));
    if (time.far > 0) {
      const auto more = static_cast<double>(CausalPairs(time.far, time.far + time.rows, window)) - near;
      if (more > 0) pair_s = std::max(0.0, (time.far_s - time.near_s) / more);
    }
    knots.push_back({time.rows, time.before_s, std::max(0.0, time.near_s - pair_s * near), pair_s});
  }
  return knots;
}

/// A device's costs are those of any device of its name.
void CopyToNamesakes(const ProfileKey& key, const std::vector<int>& measured, ClusterCosts& costs) {
  for (size_t rank = 0; rank < key.devices.size(); ++rank) {
    for (const int other : measured) {
      if (costs.devices[rank].knots.empty() && key.devices[static_cast<size_t>(other)] == key.devices[rank]) {
        costs.devices[rank] = costs.devices[static_cast<size_t>(other)];
      }
    }
  }
}

class ProfileRun {
 public:
  ProfileRun(std::shared_ptr<EngineState> engine, const ProfileOptions& options)
      : engine_(std::move(engine)),
        options_(options),
        shape_(engine_->planner().shape()),
        key_(engine_->planner().key()),
        longest_(std::clamp<int64_t>(options.longest, 2, engine_->decoder().spec().max_positions)) {}

  CostProfile Run() {
    CostProfile profile;
    profile.key = key_;
    std::vector<int> counts;
    for (int count = 1; count < key_.ranks(); count *= 2) counts.push_back(count);
    counts.push_back(key_.ranks());
    for (size_t i = 0; i < counts.size(); ++i) {
      share_done_ = static_cast<double>(i) / static_cast<double>(counts.size());
      share_of_count_ = 1 / static_cast<double>(counts.size());
      profile.active.emplace(counts[i], MeasureWhile(counts[i]));
    }
    // Links are measured only where several ranks work; one alone has none that matter.
    if (key_.ranks() > 1) profile.active.at(1).links = profile.active.at(key_.ranks()).links;
    return profile;
  }

 private:
  ClusterCosts MeasureWhile(int count) {
    ClusterCosts costs;
    costs.devices.resize(static_cast<size_t>(key_.ranks()));
    for (int first = 0; first < key_.ranks(); first += count) {
      // The last group takes some of the ranks before it.
      const int begin = std::min(first, key_.ranks() - count);
      std::vector<int> members(static_cast<size_t>(count));
      std::iota(members.begin(), members.end(), begin);
      const bool known = std::all_of(members.begin(), members.end(), [&](int member) {
        return !costs.devices[static_cast<size_t>(member)].knots.empty();
      });
      if (known) continue;
      MeasureDevices(members, costs);
      if (first == 0 && count > 1) links_ = MeasureLinks(*engine_, members, longest_);
      CopyToNamesakes(key_, members, costs);
    }
    costs.links = LinkTable(key_.ranks(), links_);
    MeasureEnds(count, costs);
    return costs;
  }

  void MeasureDevices(const std::vector<int>& members, ClusterCosts& costs) {
    const std::lock_guard lock(engine_->busy());
    Probe probe(*engine_, members, longest_);
    const int probed = std::min(shape_.layers - 1, kLastProbedLayer);
    std::vector<std::vector<LayerTimes>> times(members.size());
    const std::vector<int64_t> rows = RowsToMeasure(longest_);
    for (size_t i = 0; i < rows.size(); ++i) {
      const int64_t far = longest_ - rows[i];
      const std::vector<Stretches> near_runs = probe.Run({0, rows[i], probed}, options_.repeats);
      const std::vector<Stretches> far_runs =
          far > 0 ? probe.Run({far, longest_, probed}, options_.repeats) : near_runs;
      for (size_t member = 0; member < members.size(); ++member) {
        const Stretches& near = near_runs[member];
        // A model of one layer has no stretch between two exchanges; nothing will ask for it.
        const auto layer_s = [](const Stretches& run) {
          return MedianSeconds(run.layer_s.empty() ? run.before_s : run.layer_s);
        };
        times[member].push_back({rows[i], far, MedianSeconds(near.before_s), layer_s(near), layer_s(far_runs[member])});
      }
      Report(0.9 * static_cast<double>(i + 1) / static_cast<double>(rows.size()));
    }
    const int beyond = shape_.layers;  // to the end of the pass
    const std::vector<Stretches> first_row = probe.Run({0, 1, beyond}, options_.repeats);
    const std::vector<Stretches> last_row = probe.Run({longest_ - 1, longest_, beyond}, options_.repeats);
    const int64_t window = shape_.window(shape_.layers - 1);
    for (size_t member = 0; member < members.size(); ++member) {
      const auto rank = static_cast<size_t>(members[member]);
      DeviceCost& device = costs.devices[rank];
      device.name = key_.devices[rank];
      device.knots = Fit(shape_, times[member]);
      const double near_s = MedianSeconds(first_row[member].finish_s);
      const double far_s = MedianSeconds(last_row[member].finish_s);
      const auto more = static_cast<double>(CausalPairs(longest_ - 1, longest_, window) - 1);
      device.finish_pair_s = more > 0 ? std::max(0.0, (far_s - near_s) / more) : 0;
      device.finish_s = std::max(0.0, near_s - device.finish_pair_s);
    }
  }

  /// How long a phase of `count` ranks takes to begin and to end, from a short prompt's timeline.
  void MeasureEnds(int count, ClusterCosts& costs) {
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
    costs.start_s = MedianSeconds(starts);
    costs.end_s = MedianSeconds(ends);
    Report(1);
  }

  void Report(double share) const {
    if (options_.on_progress) options_.on_progress(share_done_ + share * share_of_count_);
  }

  std::shared_ptr<EngineState> engine_;
  const ProfileOptions& options_;
  WorkShape shape_;
  ProfileKey key_;
  int64_t longest_;
  LinkCost links_{0, 1e9, 0, Mover::kThread};
  double share_done_ = 0;
  double share_of_count_ = 1;
};

}  // namespace

double MedianSeconds(std::vector<double> seconds) {
  CHECK(!seconds.empty());
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

CostProfile MeasureProfile(const std::shared_ptr<EngineState>& engine, const ProfileOptions& options) {
  return ProfileRun(engine, options).Run();
}

}  // namespace runahead
