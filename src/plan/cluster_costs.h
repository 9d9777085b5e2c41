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
  double before_s = 0;  // from the start to the first exchange: embedding, first norm, the first layer's q, k and v
  double layer_s = 0;   // from one exchange to the next: output, MLP, the next layer's q, k and v
  double pair_s = 0;    // of each pair, all heads together
};

/// One device's costs for one model: piecewise linear in the rows of a chunk.
struct DeviceCost {
  std::string name;
  std::vector<RowCost> knots;  // by increasing rows, at least one
  double finish_s = 0;         // after the last exchange, for the prompt's last row: all but attention, and the head
  double finish_pair_s = 0;    // of each position that the last row sees
  double masked_pair = 1;      // what a pair costs that a dense map computes and masks, in pairs that are seen

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
  double memory_bytes_per_s = 0;  // weights are read at least once a layer; 0: as fast as they are needed
  double layer_overhead_s = 0;    // of each layer, whatever its size
};

/// Costs that follow from rates: each step takes its arithmetic or its weights' reading, whichever is longer.
DeviceCost CostFromRates(const WorkShape& shape, const DeviceRates& rates);

/// Who moves rows: a copy engine or a network card beside the computation, or the rank's own thread, as soon as both
/// sides have posted.
enum class Mover : unsigned char { kEngine, kThread };

/// One direction between two ranks.
struct LinkCost {
  double latency_s = 0;    // after the last byte left until the receiver goes on
  double bytes_per_s = 0;  // 0: nothing can be moved
  double setup_s = 0;      // of each transfer, during which the link, or the thread, is taken
  Mover mover = Mover::kEngine;

  [[nodiscard]] double Seconds(size_t bytes) const { return setup_s + static_cast<double>(bytes) / bytes_per_s; }
  friend bool operator==(const LinkCost&, const LinkCost&) = default;
};

/// What transfers between ranks of one host share: nothing (a link for each pair and direction), each rank's port for
/// each direction (a switch), or one bus of the host. Between hosts it is each host's network card, for each
/// direction.
enum class Sharing : unsigned char { kPairs, kPorts, kBus };

/// The links of a group of ranks.
class LinkTable {
 public:
  LinkTable() = default;
  LinkTable(int ranks, const LinkCost& all, Sharing sharing = Sharing::kPairs);

  /// Sets one direction.
  void Set(int from, int to, const LinkCost& cost);
  /// Places the ranks on hosts, one number of [0, ranks) for each.
  void SetHosts(std::vector<int> host_of_rank);

  [[nodiscard]] int ranks() const { return ranks_; }
  [[nodiscard]] const LinkCost& Between(int from, int to) const {
    return costs_[index_.empty() ? 0 : index_[Pair(from, to)]];
  }
  /// Whether some link is moved by threads.
  [[nodiscard]] bool AnyThread() const;

  /// What a transfer occupies: ids below resources(); the second one may equal the first.
  [[nodiscard]] std::array<size_t, 2> ResourcesOf(int from, int to) const;
  [[nodiscard]] size_t resources() const;

  /// The links among `members` only, renumbered in their order.
  [[nodiscard]] LinkTable Select(std::span<const int> members) const;

 private:
  [[nodiscard]] size_t Pair(int from, int to) const {
    return static_cast<size_t>(from) * static_cast<size_t>(ranks_) + static_cast<size_t>(to);
  }

  int ranks_ = 0;
  Sharing sharing_ = Sharing::kPairs;
  std::vector<LinkCost> costs_;    // the distinct ones
  std::vector<uint32_t> index_;    // [from][to] into costs_; empty: all are costs_[0]
  std::vector<int> host_of_rank_;  // empty: one host
};

/// A group of ranks as the simulator sees it.
struct ClusterCosts {
  std::vector<DeviceCost> devices;
  LinkTable links;
  double start_s = 0;     // from the call until the ranks begin
  double end_s = 0;       // from the last rank's end until the caller has the logits
  int64_t tile_rows = 1;  // that the devices multiply at once: cuts of long chunks are best at multiples

  [[nodiscard]] int ranks() const { return static_cast<int>(devices.size()); }
  /// The ranks of `members` only, in their order.
  [[nodiscard]] ClusterCosts Select(std::span<const int> members) const;
};

}  // namespace runahead
