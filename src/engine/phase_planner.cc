#include "engine/phase_planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "plan/simulator.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr size_t kMostPlans = 1024;  // remembered

std::vector<int> FirstRanks(int count) {
  std::vector<int> members(static_cast<size_t>(count));
  std::iota(members.begin(), members.end(), 0);
  return members;
}

/// The first ranks of the engine, as many as the partition has.
PhasePlan OnFirstRanks(Scheme scheme, Partition partition, std::string reason) {
  return {FirstRanks(partition.ranks()), scheme, std::move(partition), 0, std::move(reason)};
}

PhasePlan FromEntry(const TableEntry& entry, std::string reason) {
  PhasePlan plan = OnFirstRanks(entry.scheme, entry.partition, std::move(reason));
  plan.predicted_s = entry.ttft_s;
  return plan;
}

Topology TopologyOr(const PrefillOptions& options, Topology otherwise) {
  return options.topology.value_or(otherwise);
}

/// Whether members of a plan are ranks of the engine, not places among those that are there.
bool NamesRanks(const PrefillOptions& options) {
  return options.partition.kind == PartitionKind::kManual && options.strategy == Strategy::kRunahead;
}

std::vector<Scheme> RunaheadSchemes(const PrefillOptions& options) {
  if (options.topology) return {SchemeOf(Strategy::kRunahead, *options.topology)};
  return {Scheme::kRunaheadChain, Scheme::kRunaheadDirect};
}

}  // namespace

PhasePlanner::PhasePlanner(WorkShape shape, ProfileKey key, ClusterCosts assumed, const LinkOptions& links)
    : shape_(std::move(shape)), plain_key_(std::move(key)), unlimited_(std::move(assumed)) {
  CHECK_EQ(unlimited_.devices.size(), plain_key_.devices.size());
  there_ = FirstRanks(plain_key_.ranks());
  Limit(links);
}

void PhasePlanner::Limit(const LinkOptions& links) {
  ProfileKey key = plain_key_;
  if (links.through_host) key.devices.front() += ", links through host memory";
  Tuned kept;
  if (key == key_) kept.profile = std::move(tuned_.profile);
  key_ = std::move(key);
  table_key_ = key_;
  if (!links.limits.empty()) table_key_.devices.front() += ", " + links.limits;
  rates_ = links.rates;
  wire_ = links.wire;
  if (wire_.format != WireFormat::kExact) {
    table_key_.devices.front() += fmt::format(", rows {}", wire_.format ? Name(*wire_.format) : "auto");
  }
  Use(std::move(kept));
}

void PhasePlanner::Use(Tuned tuned) {
  tuned_ = std::move(tuned);
  costs_ = CostsWith(wire_.format.value_or(WireFormat::kExact));
  if (!wire_.format) encoded_ = CostsWith(kAutoFormat);
  if (tuned_.table) tuned_.table->tile_rows = unlimited_.tile_rows;
  plans_.clear();
}

void PhasePlanner::PlanOver(std::vector<int> there) {
  CHECK(!there.empty());
  there_ = std::move(there);
  plans_.clear();
  costs_.there.clear();
  encoded_.there.clear();
}

int PhasePlanner::Used(const PrefillOptions& options) const {
  const auto there = static_cast<int>(there_.size());
  return options.ranks == 0 ? there : std::min(options.ranks, there);
}

const ClusterCosts& PhasePlanner::CostsThere(const Costs& costs, int active) const {
  if (std::ssize(there_) == ranks()) return costs.While(active);
  const auto known = costs.there.find(active);
  return known != costs.there.end() ? known->second
                                    : costs.there.emplace(active, costs.While(active).Select(there_)).first->second;
}

PhasePlanner::Costs PhasePlanner::CostsWith(WireFormat format) const {
  const auto with = [&](const ClusterCosts& costs) {
    return WithWire(Limited(costs, rates_), format, shape_, wire_.threads);
  };
  Costs costs{tuned_.profile, with(unlimited_), {}};
  if (costs.profile) {
    for (auto& [active, measured] : costs.profile->active) measured = with(measured);
  }
  return costs;
}

const ClusterCosts& PhasePlanner::CostsWhile(int active) const { return costs_.While(active); }

bool PhasePlanner::alike() const {
  constexpr double kNoise = 1.25;  // largest ratio of two measured times that are taken for one
  if (tuned_.profile) {
    std::vector<double> layer_s;
    for (const DeviceCost& device : CostsWhile(ranks()).devices) layer_s.push_back(device.knots.back().layer_s);
    const auto [least, most] = std::minmax_element(layer_s.begin(), layer_s.end());
    if (*most > kNoise * *least) return false;
  }
  const std::vector<std::string>& devices = plain_key_.devices;
  return std::adjacent_find(devices.begin(), devices.end(), std::not_equal_to<>()) == devices.end();
}

ClusterCosts PhasePlanner::CostsOfFirst(int count) const { return CostsWhile(count).Select(FirstRanks(count)); }

const PhasePlan& PhasePlanner::PlanFor(int64_t tokens, const PrefillOptions& options) {
  if (options.ranks < 0 || options.ranks > ranks()) {
    throw ConfigError(fmt::format("ranks: expected 1 to {}, got {}", ranks(), options.ranks));
  }
  const int topology = options.topology ? static_cast<int>(*options.topology) : -1;
  const Question question{tokens, options.strategy, options.ranks, options.partition.kind, topology};
  if (options.partition.kind != PartitionKind::kManual) {
    if (const auto known = plans_.find(question); known != plans_.end()) return known->second;
  }
  if (plans_.size() >= kMostPlans) plans_.clear();
  PhasePlan plan = MakeWithWire(tokens, options);
  if (!NamesRanks(options)) {
    for (int& member : plan.members) member = there_.at(static_cast<size_t>(member));
  }
  return plans_.insert_or_assign(question, std::move(plan)).first->second;
}

PhasePlan PhasePlanner::MakeWithWire(int64_t tokens, const PrefillOptions& options) const {
  PhasePlan plan = Make(tokens, options, costs_);
  if (wire_.format) {
    const size_t links = plan.members.size() * plan.members.size();
    if (links > 1 && *wire_.format != WireFormat::kExact) plan.wire.assign(links, *wire_.format);
    return plan;
  }
  PhasePlan other = Make(tokens, options, encoded_);
  if (other.members.size() == 1) return plan;
  const auto used = [&](const Costs& costs, const PhasePlan& of) {
    const auto active = static_cast<int>(of.members.size());
    return (NamesRanks(options) ? costs.While(active) : CostsThere(costs, active)).Select(of.members);
  };
  const ClusterCosts encoded = used(encoded_, other);
  const double plan_s = Simulate(shape_, used(costs_, plan), plan.scheme, plan.partition).ttft_s;
  const double other_s = Simulate(shape_, encoded, other.scheme, other.partition).ttft_s;
  if (other_s > plan_s * (1 - kPlannerNoise)) return plan;
  other.wire = FormatOfEachLink(shape_, used(costs_, other), encoded, other);
  other.reason += fmt::format("; rows travel as {}", WireText(other.wire, other));
  return other;
}

PhasePlan PhasePlanner::Make(int64_t tokens, const PrefillOptions& options, const Costs& costs) const {
  const int used = Used(options);
  switch (options.strategy) {
    case Strategy::kSingle:
      return OnFirstRanks(Scheme::kSingle, EvenPartition(tokens, 1), "one rank as asked");
    case Strategy::kTspDense:
    case Strategy::kTspCausal:
      return OnFirstRanks(SchemeOf(options.strategy, Topology::kDirect), EvenPartition(tokens, used), "even chunks");
    case Strategy::kRunahead:
      break;
  }
  const Scheme scheme = SchemeOf(options.strategy, TopologyOr(options, Topology::kChain));
  switch (options.partition.kind) {
    case PartitionKind::kEven:
      return OnFirstRanks(scheme, EvenPartition(tokens, used), "even chunks");
    case PartitionKind::kSearched:
    case PartitionKind::kPredicted:
      try {
        return FromTable(tokens, options);
      } catch (const ConfigError&) {  // nothing was searched for those that are left
        if (std::ssize(there_) == ranks()) throw;
        return Auto(tokens, options, costs);
      }
    case PartitionKind::kAuto:
      return Auto(tokens, options, costs);
    case PartitionKind::kManual:
      break;
  }
  const std::vector<double>& fractions = options.partition.fractions;
  const int asked = options.ranks == 0 ? ranks() : options.ranks;
  if (fractions.size() != static_cast<size_t>(asked)) {
    throw ConfigError(
        fmt::format("partition: expected {} fractions, one for each rank, got {}", asked, fractions.size()));
  }
  return OnFirstRanks(scheme, FractionPartition(tokens, fractions), "given fractions");
}

PhasePlan PhasePlanner::FromTable(int64_t tokens, const PrefillOptions& options) const {
  const int used = Used(options);
  if (used == 1) return OnFirstRanks(Scheme::kSingle, EvenPartition(tokens, 1), "one rank has nothing to cut");
  const bool searched = options.partition.kind == PartitionKind::kSearched;
  std::optional<TableEntry> best;
  for (const Scheme scheme : RunaheadSchemes(options)) {
    if (!tuned_.table) break;
    std::optional<TableEntry> entry;
    if (!searched) {
      entry = Predict(*tuned_.table, scheme, used, tokens);
    } else if (const TableEntry* found = tuned_.table->Find(scheme, used, tokens)) {
      entry = *found;
    }
    if (entry && (!best || entry->ttft_s < best->ttft_s)) best = entry;
  }
  if (best) return FromEntry(*best, searched ? "searched for this length" : "predicted from the partition table");
  const std::string why = tuned_.refused.empty() ? "" : "; " + tuned_.refused;
  throw ConfigError(
      fmt::format("partition: nothing was searched {} {} tokens on {} ranks; `runahead tune --search` does{}",
                  searched ? "for" : "near", tokens, used, why));
}

std::optional<TableEntry> PhasePlanner::Predict(const PartitionTable& table, Scheme scheme, int used,
                                                int64_t tokens) const {
  return table.Predict(scheme, used, tokens, [&](Scheme way, int count, int64_t length) {
    return SolvePartition(shape_, CostsOfFirst(count), way, length, /*most_events=*/0);
  });
}

std::optional<PhasePlan> PhasePlanner::BestOfTable(int64_t tokens, const PrefillOptions& options) const {
  if (!tuned_.table) return std::nullopt;
  const int fewest = options.ranks == 0 ? 1 : Used(options);
  const int most = Used(options);
  std::optional<TableEntry> best;
  bool knows_several = most == 1;  // one rank alone says nothing about several
  std::string times;
  for (int count = fewest; count <= most; ++count) {
    for (const Scheme scheme : count == 1 ? std::vector{Scheme::kSingle} : RunaheadSchemes(options)) {
      const std::optional<TableEntry> entry = Predict(*tuned_.table, scheme, count, tokens);
      if (!entry) continue;
      knows_several = knows_several || count > 1;
      times += fmt::format("{}{}: {:.4g} ms", times.empty() ? "" : ", ", count, entry->ttft_s * 1e3);
      const bool more_ranks = best && best->partition.ranks() < count;
      if (!best || entry->ttft_s < best->ttft_s * (more_ranks ? 1 - kPlannerNoise : 1)) best = entry;
    }
  }
  if (!best || !knows_several) return std::nullopt;
  return FromEntry(*best, fmt::format("partition table: ranks used {} of {}, predicted {}", best->partition.ranks(),
                                      ranks(), times));
}

PhasePlan PhasePlanner::Auto(int64_t tokens, const PrefillOptions& options, const Costs& costs) const {
  if (std::optional<PhasePlan> plan = BestOfTable(tokens, options)) return *std::move(plan);
  PlanRequest request;
  request.tokens = tokens;
  request.ranks = Used(options);
  // Without a measurement there is no telling when ranks stop helping: all that were asked for work.
  request.may_leave_out = options.ranks == 0 && tuned_.profile.has_value();
  if (options.topology) request.scheme = SchemeOf(Strategy::kRunahead, *options.topology);
  PhasePlan plan = ChoosePlan(
      shape_, [&](int active) -> const ClusterCosts& { return CostsThere(costs, active); }, request);
  plan.partition = RoundCuts(plan.partition, unlimited_.tile_rows);
  if (tuned_.profile) {
    plan.reason = "cost profile: " + plan.reason;
    return plan;
  }
  plan.predicted_s = 0;
  plan.reason = fmt::format("analytic model: ranks used {} of {}, none left out before `runahead tune` has measured",
                            plan.members.size(), ranks());
  if (!tuned_.refused.empty()) plan.reason += "; " + tuned_.refused;
  return plan;
}

}  // namespace runahead
