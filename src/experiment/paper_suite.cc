#include "experiment/paper_suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>

#include "base/median.h"
#include "engine/engine_state.h"
#include "engine/link_options.h"
#include "experiment/bench_run.h"
#include "experiment/machine.h"
#include "experiment/matmul_ceiling.h"
#include "experiment/side_traffic.h"
#include "model/flops.h"
#include "model/model_info.h"
#include "model/model_loader.h"
#include "ops/devices.h"
#include "plan/search.h"
#include "runahead/error.h"
#include "tune/measure_profile.h"
#include "tune/requests.h"
#include "tune/search_partitions.h"

namespace runahead {
namespace {

using Say = std::function<void(const std::string&)>;

constexpr int64_t kProbeContext = 16384;  // the longest that side traffic and the breakdown look at
constexpr int kProfileRepeats = 3;

/// The engine options of one case of links.
EngineOptions WithLinks(EngineOptions options, const std::string& name) {
  options.link = name == "host" ? "host" : "auto";
  options.link_bandwidth = name.starts_with("link:") ? name.substr(5) : "";
  options.rank_bandwidth = name.starts_with("rank:") ? name.substr(5) : "";
  return options;
}

/// One way to prefill, by the paper's name for it.
struct Way {
  std::string name;  // "single", "TSP", "TSP causal", "KVR-E", "KVR-S", "KVR-P", "auto"
  Combination combination;
};

/// The paper's baseline, which has equal chunks.
Way Gathered(const std::string& name, Strategy strategy, int ranks, Gather gather) {
  Way way;
  way.name = name;
  way.combination.options.strategy = strategy;
  way.combination.options.topology = Topology::kDirect;
  way.combination.options.ranks = ranks;
  way.combination.options.gather = gather;
  return way;
}

Json Round(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(std::round(value * 1e4) / 1e4);
  return list;
}

/// The experiments on one model.
class ModelSuite {
 public:
  ModelSuite(const SuitePlan& plan, const SuiteModel& model, const Say& say)
      : plan_(plan), say_(say), spec_(ConfigOf(model.model).spec()), name_(model.name) {
    for (const int64_t context : plan.contexts) {
      if (context <= spec_.max_positions) contexts_.push_back(context);
    }
    std::sort(contexts_.begin(), contexts_.end());
    engine_.emplace(plan.load(model.model, WithLinks(plan.engine, "full")));
    const int all = engine_->ranks();
    for (const int64_t count : plan.ranks) {
      if (count > all) throw ConfigError(fmt::format("--ranks: {} are more than the {} of --devices", count, all));
      if (count > 1) ranks_.push_back(count);
    }
    if (plan.ranks.empty()) {
      for (int count = 2; count < all; count *= 2) ranks_.push_back(count);
      if (all > 1) ranks_.push_back(all);
    }
    if (ranks_.empty()) throw ConfigError("--devices: the suite compares several ranks");
    MeasureCeilings();
    json_ = {{"model", name_},
             {"dtype", engine_->facts().dtype},
             {"device", engine_->devices().front()},
             {"ranks", ranks_},
             {"contexts", contexts_},
             {"ceilings", ceilings_json_},
             {"results", Json::array()},
             {"searches", Json::array()},
             {"side_traffic", Json::array()},
             {"breakdown", Json::array()}};
  }

  [[nodiscard]] const Json& json() const { return json_; }
  /// What did not compute what one rank computes; empty: nothing.
  [[nodiscard]] const std::string& wrong() const { return wrong_; }

  /// All ways at all contexts, over links as `links` says. `keep` is called whenever json() knows more.
  void RunCase(const std::string& links, const std::function<void()>& keep) {
    state().Hold().SetLinks(ParseLinkOptions(WithLinks(plan_.engine, links), engine_->ranks()));
    links_ = links;
    has_nccl_ = links == "full" && HasNccl();  // it takes its own ways
    MeasureCosts();
    topologies_.clear();
    for (const int64_t count : ranks_) topologies_[count] = BetterTopology(count);
    Search();
    keep();
    for (const int64_t context : contexts_) {
      Compare(context);
      keep();
    }
    Disturb(ProbeContext());
    keep();
    BreakDown(ProbeContext());
    keep();
  }

 private:
  [[nodiscard]] EngineState& state() { return *StateOf(*engine_); }
  [[nodiscard]] PhasePlanner Planner() { return state().Hold().planner(); }
  [[nodiscard]] int64_t ProbeContext() const {
    if (plan_.probe_context > 0) return std::min(plan_.probe_context, spec_.max_positions);
    const auto beyond = std::upper_bound(contexts_.begin(), contexts_.end(), kProbeContext);
    return beyond == contexts_.begin() ? contexts_.front() : *(beyond - 1);
  }

  [[nodiscard]] bool HasNccl() {
    std::vector<int> members(static_cast<size_t>(ranks_.back()));
    std::iota(members.begin(), members.end(), 0);
    try {
      (void)state().Hold().GatherOf(members);
      return true;
    } catch (const Error& error) {
      if (state().on_gpus()) say_(fmt::format("{}: without NCCL: {}", name_, error.what()));
      return false;
    }
  }

  void MeasureCeilings() {
    const std::vector<RankDevice> devices = ParseDevices(plan_.engine.devices);
    const DType compute = ParseDType(engine_->facts().dtype).value_or(DType::kF32);
    std::set<int64_t> counts(ranks_.begin(), ranks_.end());
    counts.insert(1);
    for (const int64_t count : counts) {
      const MatmulCeiling ceiling = MeasureMatmulCeiling({devices.begin(), devices.begin() + count},
                                                         engine_->threads_per_rank(), compute, plan_.repeats);
      ceilings_[count] = ceiling.Best();
      ceilings_json_.push_back({{"ranks", count}, {"best", ceiling.Best()}, {"sustained", ceiling.sustained}});
      say_(fmt::format("{}: matmul ceiling of {} rank{}: {:.1f} GFLOP/s at best, {:.1f} sustained", name_, count,
                       count == 1 ? "" : "s", ceiling.Best() / 1e9, ceiling.sustained / 1e9));
    }
  }

  /// The cost profile, where these links have none yet.
  void MeasureCosts() {
    if (Planner().tuned().profile) return;
    Tuned tuned;
    tuned.profile = MeasureProfile(StateOf(*engine_), contexts_.back(), kProfileRepeats, [](double) {});
    state().Hold().planner().Use(std::move(tuned));
    const PhasePlanner planner = Planner();
    const LinkCost& link = planner.CostsWhile(engine_->ranks()).links.Between(0, 1);
    say_(fmt::format("{}: links move {:.1f} GB/s, {:.1f} us set-up, {:.1f} us latency", name_, link.bytes_per_s / 1e9,
                     link.setup_s * 1e6, link.latency_s * 1e6));
  }

  [[nodiscard]] Topology BetterTopology(int64_t count) {
    const PhasePlanner planner = Planner();
    const ClusterCosts costs = planner.CostsOfFirst(static_cast<int>(count));
    const auto seconds = [&](Scheme scheme) {
      return SolvePartition(planner.shape(), costs, scheme, contexts_.back()).cost;
    };
    return seconds(Scheme::kRunaheadDirect) <= seconds(Scheme::kRunaheadChain) ? Topology::kDirect : Topology::kChain;
  }

  /// KVR-S for every context and number of ranks, into the planner's table.
  void Search() {
    PartitionTable table{Planner().table_key(), {}};
    for (const int64_t count : ranks_) {
      SearchPlan plan;
      plan.contexts = contexts_;
      plan.ranks = {count};
      plan.topologies = {topologies_.at(count)};
      plan.repeats = plan_.search_repeats;
      plan.most_evaluations = plan_.search_evaluations;
      plan.decoded_tokens = plan_.decoded_tokens;
      plan.seed = plan_.seed;
      for (const SearchReport& report : SearchPartitions(*engine_, spec_, plan, [](int64_t, int) {})) {
        table.Put(report.best);
        const Partition& partition = report.best.partition;
        if (partition.ranks() == 1) continue;
        json_["searches"].push_back({{"links", links_},
                                     {"ranks", partition.ranks()},
                                     {"context", partition.tokens()},
                                     {"topology", Name(topologies_.at(count))},
                                     {"cuts", partition.cuts()},
                                     {"solved_cuts", report.direct_solve.cuts()},
                                     {"ttft_ms", report.best.ttft_s * 1e3},
                                     {"evaluations", report.evaluations}});
      }
    }
    Tuned tuned = Planner().tuned();
    tuned.table = std::move(table);
    state().Hold().planner().Use(std::move(tuned));
  }

  /// The ways to prefill `context` tokens; KVR-P knows the searches of all other contexts.
  [[nodiscard]] std::vector<Way> WaysFor(int64_t context) {
    const PhasePlanner planner = Planner();
    const PartitionTable& table = *planner.tuned().table;
    std::vector<Way> ways{{"single", {{Strategy::kSingle, Topology::kChain, {}, 1, false}, ""}}};
    for (const int64_t count : ranks_) {
      const int ranks = static_cast<int>(count);
      if (count > context) continue;
      const Topology topology = topologies_.at(count);
      const Scheme scheme = SchemeOf(Strategy::kRunahead, topology);
      ways.push_back(Gathered("TSP", Strategy::kTspDense, ranks, Gather::kCopies));
      ways.push_back(Gathered("TSP causal", Strategy::kTspCausal, ranks, Gather::kCopies));
      if (has_nccl_) {
        ways.push_back(Gathered("TSP, NCCL", Strategy::kTspDense, ranks, Gather::kNccl));
        ways.push_back(Gathered("TSP causal, NCCL", Strategy::kTspCausal, ranks, Gather::kNccl));
      }
      ways.push_back({"KVR-E", {OptionsFor(topology, EvenPartition(context, ranks)), "even"}});
      if (const TableEntry* searched = table.Find(scheme, ranks, context)) {
        ways.push_back({"KVR-S", {OptionsFor(topology, searched->partition), "searched"}});
      }
      PartitionTable others = table;
      std::erase_if(others.entries, [&](const TableEntry& entry) { return entry.partition.tokens() == context; });
      if (const std::optional<TableEntry> predicted = planner.Predict(others, scheme, ranks, context)) {
        ways.push_back({"KVR-P", {OptionsFor(topology, predicted->partition), "predicted"}});
      }
    }
    ways.push_back({"auto", {{Strategy::kRunahead, std::nullopt, {}, 0, false}, "auto"}});
    return ways;
  }

  void Compare(int64_t context) {
    const std::vector<Way> ways = WaysFor(context);
    BenchPlan bench;
    bench.contexts = {context};
    for (const Way& way : ways) bench.combinations.push_back(way.combination);
    bench.repeats = plan_.repeats;
    bench.warmup = plan_.warmup;
    bench.decoded_tokens = plan_.decoded_tokens;
    bench.seed = plan_.seed;
    const std::vector<Measurement> measured = RunBench(*engine_, spec_, bench, [](double) {});
    const DType compute = ParseDType(engine_->facts().dtype).value_or(DType::kF32);
    const double allowed = AllowedDifference(spec_, compute, plan_.engine.wire);
    std::map<int, double> tsp_ms;
    const double single_ms = measured.front().MedianMs();
    for (size_t i = 0; i < ways.size(); ++i) {
      const Measurement& measurement = measured[i];
      const double ms = measurement.MedianMs();
      const int ranks = static_cast<int>(measurement.cuts.size()) - 1;
      if (ways[i].name == "TSP" || (ways[i].name == "TSP, NCCL" && ms < tsp_ms.at(ranks))) tsp_ms[ranks] = ms;
      const double limit_ms = measurement.flops / CeilingOf(ranks) * 1e3;
      Json result = {{"links", links_},
                     {"way", ways[i].name},
                     {"ranks", ranks},
                     {"context", context},
                     {"cuts", measurement.cuts},
                     {"ttft_ms", Round(measurement.ttft_ms)},
                     {"ttft_ms_median", ms},
                     {"model_flops", measurement.flops},
                     {"limit_ms", limit_ms},
                     {"share_of_limit", limit_ms / ms},
                     {"speed_up", single_ms / ms},
                     {"efficiency", single_ms / ms / ranks},
                     {"logit_difference", measurement.logit_difference},
                     {"same_first_token", measurement.same_token}};
      if (ways[i].name.starts_with("KVR")) result["topology"] = Name(*ways[i].combination.options.topology);
      if (tsp_ms.contains(ranks)) result["speed_up_over_tsp"] = tsp_ms.at(ranks) / ms;
      json_["results"].push_back(std::move(result));
      say_(fmt::format("{}: links {}, {} tokens, {} rank{}, {}: {:.2f} ms, {:.1f} % of the limit", name_, links_,
                       context, ranks, ranks == 1 ? "" : "s", ways[i].name, ms, 100 * limit_ms / ms));
      if (!(measurement.logit_difference <= allowed)) {
        wrong_ += fmt::format(
            "{}{}: {} at {} tokens over links {}: logits differ from one rank's by {:.2e} of the largest, {:.2e} "
            "allowed",
            wrong_.empty() ? "" : "; ", name_, ways[i].name, context, links_, measurement.logit_difference, allowed);
      }
    }
  }

  /// The ceiling of so many ranks, FLOP/s: measured, or the share of the next larger number (auto may use any
  /// number).
  [[nodiscard]] double CeilingOf(int ranks) const {
    const auto found = ceilings_.lower_bound(ranks);
    if (found == ceilings_.end()) return ceilings_.rbegin()->second;
    return found->second * ranks / static_cast<double>(found->first);
  }

  /// The ways on most ranks, in turn with and without somebody else's copies on the first link.
  void Disturb(int64_t context) {
    Requests requests(*engine_, spec_, context, plan_.decoded_tokens, plan_.seed);
    const auto request_ms = [&](const PrefillOptions& options) {
      const double ttft_ms = requests.Prefill(options).ttft_ms;
      requests.Decode();
      return ttft_ms;
    };
    for (const Way& way : WaysFor(context)) {
      if (way.combination.options.ranks != ranks_.back()) continue;
      const PrefillOptions& options = way.combination.options;
      std::vector<double> quiet;
      std::vector<double> disturbed;
      double rate = 0;
      request_ms(options);
      for (int repeat = 0; repeat < plan_.repeats; ++repeat) {
        quiet.push_back(request_ms(options));
        SideTraffic traffic(state(), 0, 1);
        request_ms(options);  // the traffic flows when this prompt is done
        (void)traffic.Rate();
        disturbed.push_back(requests.Prefill(options).ttft_ms);
        rate = traffic.Rate();
        requests.Decode();
      }
      const double lost = MedianOf(disturbed) / MedianOf(quiet) - 1;
      json_["side_traffic"].push_back({{"links", links_},
                                       {"way", way.name},
                                       {"ranks", options.ranks},
                                       {"context", context},
                                       {"from", 0},
                                       {"to", 1},
                                       {"traffic_bytes_per_s", rate},
                                       {"ttft_ms", Round(quiet)},
                                       {"ttft_ms_median", MedianOf(quiet)},
                                       {"disturbed_ttft_ms", Round(disturbed)},
                                       {"disturbed_ttft_ms_median", MedianOf(disturbed)},
                                       {"lost_share", lost}});
      say_(fmt::format("{}: links {}, {} tokens, {}: side traffic of {:.1f} GB/s costs {:.1f} %", name_, links_,
                       context, way.name, rate / 1e9, 100 * lost));
    }
  }

  /// Reports where the time of the ways on most ranks goes.
  void BreakDown(int64_t context) {
    Requests requests(*engine_, spec_, context, plan_.decoded_tokens, plan_.seed);
    for (const Way& way : WaysFor(context)) {
      PrefillOptions options = way.combination.options;
      if (options.ranks != ranks_.back() && options.ranks != 1) continue;
      options.record_timeline = true;
      requests.Prefill(options);
      requests.Decode();
      const PrefillReport report = requests.Prefill(options);
      Json ranks = Json::array();
      for (int rank = 0; rank < report.ranks(); ++rank) ranks.push_back(OfRank(report, rank));
      json_["breakdown"].push_back({{"links", links_},
                                    {"way", way.name},
                                    {"context", context},
                                    {"ttft_ms", report.ttft_ms},
                                    {"cuts", report.cuts},
                                    {"ranks", std::move(ranks)}});
    }
  }

  static Json OfRank(const PrefillReport& report, int rank) {
    std::map<Activity, double> ms;
    std::map<Activity, size_t> bytes;
    double end_ms = 0;
    for (const TimelineEvent& event : report.timeline) {
      if (event.rank != rank) continue;
      ms[event.activity] += event.end_ms - event.begin_ms;
      bytes[event.activity] += event.bytes;
      end_ms = std::max(end_ms, event.end_ms);
    }
    const auto rate = [&](Activity activity) {
      return ms[activity] > 0 ? static_cast<double>(bytes[activity]) / ms[activity] * 1e3 : 0.0;
    };
    const double computing = ms[Activity::kCompute];
    const double waiting = ms[Activity::kWait];
    return {{"rank", rank},
            {"compute_ms", computing},
            {"wait_ms", waiting},
            {"other_ms", std::max(0.0, end_ms - computing - waiting)},
            {"end_ms", end_ms},
            {"sent_bytes", bytes[Activity::kSend]},
            {"received_bytes", bytes[Activity::kReceive]},
            {"send_bytes_per_s", rate(Activity::kSend)},
            {"receive_bytes_per_s", rate(Activity::kReceive)}};
  }

  const SuitePlan& plan_;
  const Say& say_;
  DecoderSpec spec_;
  std::string name_;
  std::vector<int64_t> contexts_;  // ascending
  std::vector<int64_t> ranks_;     // numbers of ranks beside 1, ascending
  std::optional<Engine> engine_;
  std::map<int64_t, double> ceilings_;  // FLOP/s of so many ranks
  Json ceilings_json_ = Json::array();
  std::string links_;  // the case that runs
  bool has_nccl_ = false;
  std::map<int64_t, Topology> topologies_;  // key: number of ranks
  Json json_;
  std::string wrong_;
};

}  // namespace

void CheckSuite(const SuitePlan& plan) {
  const auto devices = static_cast<int64_t>(ParseDevices(plan.engine.devices).size());
  if (devices < 2)
    throw ConfigError(fmt::format("--devices: the suite compares several ranks, got '{}'", plan.engine.devices));
  for (const int64_t count : plan.ranks) {
    if (count > devices) {
      throw ConfigError(fmt::format("--ranks: {} are more than the {} of --devices", count, devices));
    }
  }
  for (const std::string& name : plan.links) {
    const bool limit = name.starts_with("link:") || name.starts_with("rank:");
    if (name != "full" && name != "host" && !limit) {
      throw ConfigError(fmt::format("--suite-links: expected full, host, link:RATE or rank:RATE, got '{}'", name));
    }
    try {
      if (limit && name.size() == std::string_view("link:").size()) throw ConfigError("expected a rate like 10GB/s");
      (void)ParseLinkOptions(WithLinks(plan.engine, name), static_cast<int>(devices));
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("--suite-links: '{}': {}", name, error.what()));
    }
  }
  const int64_t shortest = *std::min_element(plan.contexts.begin(), plan.contexts.end());
  for (const SuiteModel& model : plan.models) {
    const ModelConfig& config = ConfigOf(model.model);
    const int64_t longest = DescribeModel(config).spec.max_positions;  // reads the weights' headers too
    if (shortest > longest) {
      throw ConfigError(
          fmt::format("--contexts: {}: all are beyond its context of {}", config.dir().string(), longest));
    }
  }
}

Json RunPaperSuite(const SuitePlan& plan, const Say& say, const std::function<void(const Json&)>& keep) {
  const MachineFacts machine = DescribeMachine();
  Json suite = {{"suite", "paper"},
                {"devices", plan.engine.devices},
                {"repeats", plan.repeats},
                {"decoded_tokens", plan.decoded_tokens},
                {"machine", {{"cpu", machine.cpu}, {"processors", machine.processors}}},
                {"models", Json::array()}};
  std::string wrong;
  for (const SuiteModel& of_plan : plan.models) {
    ModelSuite model(plan, of_plan, say);
    suite["models"].push_back(model.json());
    for (const std::string& links : plan.links) {
      model.RunCase(links, [&] {
        suite["models"].back() = model.json();
        keep(suite);
      });
    }
    wrong += model.wrong();
  }
  if (!wrong.empty()) throw Error(wrong);
  return suite;
}

}  // namespace runahead
