// What computing and moving cost on a group of ranks: what the simulator runs on.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "plan/work_shape.h"

namespace runahead {

/// Seconds of a chunk of `rows` rows, attention aside, and of each query-key pair of its attention in one layer.
struct RowCost {
  int64_t rows = 0;
  double before_s = 0;  // time up to the first exchange, s: embedding, first norm, the first layer's q, k and v
  double layer_s = 0;   // time between two exchanges, s: output, MLP, the next layer's q, k and v
  double pair_s = 0;    // time of a query-key pair, s, all heads together
};

/// One device's costs for one model: piecewise linear in the rows of a chunk.
struct DeviceCost {
  std::string name;
  std::vector<RowCost> knots;  // at least one, ascending by rows
  double finish_s = 0;  // time of the prompt's last row after the last exchange, s: the head, and all but attention
  double finish_pair_s = 0;  // time of each position that the last row sees, s
  double masked_pair = 1;    // cost of a pair that a dense map computes and masks away, in visible pairs

  /// Interpolated; beyond the outermost knots the line of the outer two goes on, never below 0.
  [[nodiscard]] RowCost At(int64_t rows) const;
  /// The same device when everything takes `factor` times as long.
  [[nodiscard]] DeviceCost Slowed(double factor) const;
};

/// What a device is said to reach.
struct DeviceRates {
  std::string name;
  double flops = 0;               // FLOP/s that its matmuls reach
  double attention_flops = 0;     // FLOP/s that its attention reaches
  double memory_bytes_per_s = 0;  // rate of reading the weights once a layer; 0: not limited
  double layer_overhead_s = 0;    // fixed time of each layer, s
};

/// Costs that follow from rates: each step takes its arithmetic or its weights' reading, whichever is longer.
DeviceCost CostFromRates(const WorkShape& shape, const DeviceRates& rates);

/// Who moves rows: a copy engine or a network card beside the computation, or the rank's own thread, as soon as both
/// sides have posted.
enum class Mover : unsigned char { kEngine, kThread };

/// One direction between two ranks.
struct LinkCost {
  double latency_s = 0;    // time from the last byte's departure until the receiver goes on, s
  double bytes_per_s = 0;  // 0: nothing can be moved
  double setup_s = 0;      // fixed time of a transfer, s, during which its link or thread is taken
  Mover mover = Mover::kEngine;

  [[nodiscard]] double Seconds(size_t bytes) const { return setup_s + static_cast<double>(bytes) / bytes_per_s; }
  friend bool operator==(const LinkCost&, const LinkCost&) = default;
};

/// What transfers between ranks of one host share: nothing (a link for each pair and direction), each rank's port for
/// each direction (a switch), or one bus of the host. Between hosts it is each host's network card, for each
/// direction.
enum class Sharing : unsigned char { kPairs, kPorts, kBus };

/// Neighbouring receivers that one sender reaches alike: over links of one cost, all on its own host or all
/// elsewhere.
struct LinkRun {
  int end = 0;  // one past the last receiver
  const LinkCost* cost = nullptr;
  size_t first = 0;             // resource of the first receiver, as ResourcesOf gives it
  size_t second = 0;            // likewise
  size_t first_step = 0;        // distance from one receiver's resource to the next one's, 0 or 1
  size_t second_step = 0;       // likewise
  const int* hosts = nullptr;   // hosts of receivers elsewhere, whose second resources are those of hosts
  size_t second_of_host_0 = 0;  // then the resource of host 0, behind which those of the others follow
};

/// The links of a group of ranks.
class LinkTable {
 public:
  LinkTable() = default;
  LinkTable(int ranks, const LinkCost& all, Sharing sharing = Sharing::kPairs);

  /// Sets one direction.
  void Set(int from, int to, const LinkCost& cost);
  /// Places the ranks on hosts, one number of [0, ranks) for each.
  void SetHosts(std::vector<int> host_of_rank);

  /// As SetHosts was told; empty: one host.
  [[nodiscard]] const std::vector<int>& hosts() const { return host_of_rank_; }

  [[nodiscard]] int ranks() const { return ranks_; }
  [[nodiscard]] const LinkCost& Between(int from, int to) const {
    return costs_[index_.empty() ? 0 : index_[Pair(from, to)]];
  }
  /// Whether some link is moved by threads.
  [[nodiscard]] bool AnyThread() const;

  /// What a transfer occupies: ids below resources(); the second one may equal the first.
  [[nodiscard]] std::array<size_t, 2> ResourcesOf(int from, int to) const;
  [[nodiscard]] size_t resources() const;
  /// The longest run of receivers [to, ...) below `end` that `from`, which is none of them, reaches alike.
  [[nodiscard]] LinkRun RunFrom(int from, int to, int end) const;

  /// The links among `members` only, renumbered in their order.
  [[nodiscard]] LinkTable Select(std::span<const int> members) const;

 private:
  [[nodiscard]] size_t Pair(int from, int to) const {
    return static_cast<size_t>(from) * static_cast<size_t>(ranks_) + static_cast<size_t>(to);
  }

  [[nodiscard]] int HostOf(int rank) const {
    return host_of_rank_.empty() ? 0 : host_of_rank_[static_cast<size_t>(rank)];
  }

  int ranks_ = 0;
  Sharing sharing_ = Sharing::kPairs;
  std::vector<LinkCost> costs_;    // distinct costs
  std::vector<uint32_t> index_;    // [from][to], indices into costs_; empty: all are costs_[0]
  std::vector<int> host_of_rank_;  // empty: one host
  std::vector<int> host_end_;      // one past the last of the neighbouring ranks on a rank's host
  bool own_hosts_ = false;         // whether the host of each rank has the rank's number
};

/// A group of ranks as the simulator sees it.
struct ClusterCosts {
  std::vector<DeviceCost> devices;
  LinkTable links;
  double start_s = 0;     // time from the call until the ranks begin, s
  double end_s = 0;       // time from the last rank's end until the caller has the logits, s
  int64_t tile_rows = 1;  // rows that the devices multiply at once: multiples are the best cuts of long chunks

  [[nodiscard]] int ranks() const { return static_cast<int>(devices.size()); }
  /// The ranks of `members` only, in their order.
  [[nodiscard]] ClusterCosts Select(std::span<const int> members) const;
};

}  // namespace runahead
