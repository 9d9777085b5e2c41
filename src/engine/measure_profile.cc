#include "engine/measure_profile.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <map>
#include <numeric>

#include "engine/session_state.h"
#include "prefill/slow_exchange.h"

namespace runahead {
namespace {

constexpr int kLastProbedLayer = 4;   // whose exchange ends a short run
constexpr int64_t kStartTokens = 16;  // of the prompts that show what a phase costs besides its layers

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

  /// Every member makes the run at the same time, again and again until all have made it `times` times: whoever is
  /// fast goes on working beside the others. Adds to `seen`, which has an entry for each member; null: to nothing.
  void Run(const ShortRun& run, int times, std::vector<Stretches>* seen) {
    std::barrier together(static_cast<std::ptrdiff_t>(members_.size()));
    std::atomic<size_t> finished{0};
    std::vector<std::future<void>> done;
    for (size_t i = 0; i < members_.size(); ++i) {
      done.push_back(engine_.rank(members_[i]).Post([&, i] {
        together.arrive_and_wait();
        for (int counted = 0; counted < times || finished.load() < members_.size();) {
          Once(i, run, seen == nullptr ? nullptr : &(*seen)[i]);
          if (++counted == times) ++finished;
        }
      }));
    }
    for (std::future<void>& future : done) future.get();
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
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<int32_t>(i % static_cast<size_t>(decoder.spec().vocab));
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
    if (last == LastLayer::kLastRow)
      seen->finish_s.push_back(SecondsBetween(stamps[stamps.size() - 2], stamps.back()));
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
    std::map<std::string, DeviceSamples> seen;  // by the device's name: namesakes cost the same
    for (int first = 0; first < key_.ranks(); first += count) {
      // The last group takes some of the ranks before it.
      std::vector<int> members(static_cast<size_t>(count));
      std::iota(members.begin(), members.end(), std::min(first, key_.ranks() - count));
      const bool known = std::all_of(members.begin(), members.end(), [&](int m) { return seen.contains(NameOf(m)); });
      if (known) continue;
      MeasureDevices(members, seen);
      if (first == 0 && count > 1) links_ = MeasureLinks(*engine_, members, longest_);
    }
    ClusterCosts costs;
    for (int rank = 0; rank < key_.ranks(); ++rank) {
      costs.devices.push_back(Fit(NameOf(rank), shape_, seen.at(NameOf(rank)), longest_));
    }
    costs.links = LinkTable(key_.ranks(), links_);
    MeasureEnds(count, costs);
    return costs;
  }

  [[nodiscard]] const std::string& NameOf(int rank) const { return key_.devices[static_cast<size_t>(rank)]; }

  /// Round after round over all sizes, so that a drift of the machine meets all of them.
  void MeasureDevices(const std::vector<int>& members, std::map<std::string, DeviceSamples>& seen) {
    const std::lock_guard lock(engine_->busy());
    Probe probe(*engine_, members, longest_);
    const int probed = std::min(shape_.layers - 1, kLastProbedLayer);
    const int beyond = shape_.layers;  // to the end of the pass
    const std::vector<int64_t> rows = RowsToMeasure(longest_);
    std::vector<DeviceSamples> samples(members.size());
    const auto measure = [&](const ShortRun& run, const std::function<Stretches&(DeviceSamples&)>& part) {
      std::vector<Stretches> stretches(members.size());
      probe.Run(run, 1, &stretches);
      for (size_t i = 0; i < members.size(); ++i) Append(stretches[i], part(samples[i]));
    };
    for (DeviceSamples& device : samples) {
      for (const int64_t count : rows) device.layers.push_back({count, longest_ - count, {}, {}});
    }
    probe.Run({0, longest_, probed}, 1, nullptr);  // makes room and plans
    for (int round = 0; round < options_.repeats; ++round) {
      for (size_t i = 0; i < rows.size(); ++i) {
        const int64_t far = longest_ - rows[i];
        measure({0, rows[i], probed}, [i](DeviceSamples& device) -> Stretches& { return device.layers[i].at_start; });
        if (far == 0) continue;
        measure({far, longest_, probed},
                [i](DeviceSamples& device) -> Stretches& { return device.layers[i].at_end; });
      }
      measure({0, 1, beyond}, [](DeviceSamples& device) -> Stretches& { return device.first_row; });
      measure({longest_ - 1, longest_, beyond}, [](DeviceSamples& device) -> Stretches& { return device.last_row; });
      Report(0.9 * (round + 1) / options_.repeats);
    }
    for (size_t i = 0; i < members.size(); ++i) {
      const auto [known, is_new] = seen.try_emplace(NameOf(members[i]), samples[i]);
      if (!is_new) Append(samples[i], known->second);
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
    costs.start_s = TypicalSeconds(starts);
    costs.end_s = TypicalSeconds(ends);
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
