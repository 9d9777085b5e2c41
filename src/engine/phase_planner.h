// Decides, for one engine, how each prompt is prefilled.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "engine/assumed_costs.h"
#include "engine/link_options.h"
#include "engine/tuned_files.h"
#include "plan/planner.h"
#include "runahead/options.h"

namespace runahead {

/// Holds what is known of the engine's costs: a partition table, a cost profile, or only the model's sizes. Remembers
/// its plans. Not thread-safe.
class PhasePlanner {
 public:
  /// `assumed`: what the ranks cost while nothing is measured. Neither that nor a profile knows of the limits of
  /// `links`.
  PhasePlanner(WorkShape shape, ProfileKey key, ClusterCosts assumed, const LinkOptions& links);

  [[nodiscard]] const WorkShape& shape() const { return shape_; }
  [[nodiscard]] const ProfileKey& key() const { return key_; }
  [[nodiscard]] const ProfileKey& table_key() const { return table_key_; }  // key of the searched partitions
  /// The links are others from now on. Forgets what was measured of them: the table, and the profile where they take
  /// another way.
  void Limit(const LinkOptions& links);
  [[nodiscard]] const Tuned& tuned() const { return tuned_; }
  /// Uses newer measurements from now on.
  void Use(Tuned tuned);

  /// Costs of all ranks while `active` work: measured where there is a profile, with the links as limited.
  [[nodiscard]] const ClusterCosts& CostsWhile(int active) const;

  /// Costs of the first `count` ranks, 1 to all, while they alone work.
  [[nodiscard]] ClusterCosts CostsOfFirst(int count) const;

  /// Whether all ranks are devices of one kind.
  [[nodiscard]] bool alike() const;

  /// Cuts of long chunks are best at multiples of so many rows.
  [[nodiscard]] int64_t tile_rows() const { return unlimited_.tile_rows; }

  /// KVR-P by the searches of `table`, on the first `used` ranks; nothing where it does not reach.
  [[nodiscard]] std::optional<TableEntry> Predict(const PartitionTable& table, Scheme scheme, int used,
                                                  int64_t tokens) const;

  /// Plans from now on are for these ranks alone, in ascending order: the others are lost.
  void PlanOver(std::vector<int> there);

  /// Throws ConfigError for options that do not fit the engine, and for kSearched and kPredicted where the table has
  /// nothing for this length.
  const PhasePlan& PlanFor(int64_t tokens, const PrefillOptions& options);

 private:
  /// What the ranks cost when rows travel in one way.
  struct Costs {
    std::optional<CostProfile> profile;  // as measured, with the links as limited
    ClusterCosts assumed;
    mutable std::map<int, ClusterCosts> there;  // costs of the ranks that are there, by the number at work

    [[nodiscard]] const ClusterCosts& While(int active) const { return profile ? profile->While(active) : assumed; }
  };

  [[nodiscard]] int ranks() const { return key_.ranks(); }
  [[nodiscard]] Costs CostsWith(WireFormat format) const;
  /// Ranks that a prompt is asked to take, as far as they are there.
  [[nodiscard]] int Used(const PrefillOptions& options) const;
  /// The costs of the ranks that are there.
  [[nodiscard]] const ClusterCosts& CostsThere(const Costs& costs, int active) const;
  /// A plan and the formats of its links.
  [[nodiscard]] PhasePlan MakeWithWire(int64_t tokens, const PrefillOptions& options) const;
  /// A plan for links that cost as `costs` says. Members are places among the ranks that are there, but for given
  /// fractions.
  [[nodiscard]] PhasePlan Make(int64_t tokens, const PrefillOptions& options, const Costs& costs) const;
  /// The table's entry, exact or interpolated. Throws ConfigError when it has nothing.
  [[nodiscard]] PhasePlan FromTable(int64_t tokens, const PrefillOptions& options) const;
  [[nodiscard]] PhasePlan Auto(int64_t tokens, const PrefillOptions& options, const Costs& costs) const;
  /// The best of the table's interpolated entries, or nothing where it does not reach.
  [[nodiscard]] std::optional<PhasePlan> BestOfTable(int64_t tokens, const PrefillOptions& options) const;

  using Question = std::tuple<int64_t, Strategy, int, PartitionKind, int>;  // the last one is the topology, -1: none

  WorkShape shape_;
  ProfileKey key_;
  ProfileKey plain_key_;  // whatever the links
  ProfileKey table_key_;
  LinkRates rates_;
  WireOptions wire_;
  Tuned tuned_;
  ClusterCosts unlimited_;  // assumed costs, no rates
  Costs costs_;             // costs under the rates, with the one format that was asked for, or exact
  Costs encoded_;           // the same with kAutoFormat, where each link is decided
  std::vector<int> there_;  // ranks that are not lost
  std::map<Question, PhasePlan> plans_;
};

}  // namespace runahead
