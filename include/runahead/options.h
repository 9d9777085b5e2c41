// How a prompt is prefilled: strategy, topology and partition.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace runahead {

/// How a prompt is spread over ranks. kTspDense is the paper's baseline (equal chunks, all-gather of keys and values,
/// the whole attention map computed and masked); kTspCausal skips the masked part.
enum class Strategy : unsigned char { kSingle, kRunahead, kTspDense, kTspCausal };

/// Who sends what in KV-Runahead: kChain, the whole prefix to the next rank (the paper); kDirect, own rows to every
/// later rank.
enum class Topology : unsigned char { kChain, kDirect };

/// Where the prompt is cut: kEven (KVR-E), kAuto (balanced by a cost model), kManual (given fractions).
enum class PartitionKind : unsigned char { kEven, kAuto, kManual };

std::string_view Name(Strategy strategy);   // "single", "runahead", "tsp", "tsp-causal"
std::string_view Name(Topology topology);   // "chain", "direct"
std::string_view Name(PartitionKind kind);  // "even", "auto", "manual"

// Throw ConfigError naming `text` and what is known.
Strategy ParseStrategy(std::string_view text);
Topology ParseTopology(std::string_view text);

/// A partition as asked for: "even", "auto", or positive fractions "5,4,3" of any sum.
struct PartitionRequest {
  PartitionKind kind = PartitionKind::kAuto;
  std::vector<double> fractions;  // kManual: one for each rank

  /// Throws ConfigError naming `text`.
  static PartitionRequest Parse(std::string_view text);
};

struct PrefillOptions {
  Strategy strategy = Strategy::kRunahead;
  Topology topology = Topology::kChain;
  PartitionRequest partition;
  int ranks = 0;                 // use the first so many; 0: all of the engine
  bool record_timeline = false;  // fill PrefillReport::timeline
};

}  // namespace runahead
