// How a prompt is prefilled: strategy, topology and partition.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/export.h"

namespace runahead {

/// How a prompt is spread over ranks. kTspDense is the paper's baseline (equal chunks, all-gather of keys and values,
/// the whole attention map computed and masked); kTspCausal skips the masked part.
enum class Strategy : unsigned char { kSingle, kRunahead, kTspDense, kTspCausal };

/// Who sends what in KV-Runahead: kChain, the whole prefix to the next rank (the paper); kDirect, own rows to every
/// later rank.
enum class Topology : unsigned char { kChain, kDirect };

/// How kTspDense and kTspCausal gather: by the links' copies, or by NCCL's all-gather (GPUs that are all different,
/// in a build that found NCCL).
enum class Gather : unsigned char { kCopies, kNccl };

/// How rows of the KV-cache travel between ranks: as they are, or quantised to a byte (integers, or e4m3), or to four
/// bits for each number. A rank's own rows stay exact in its cache.
enum class WireFormat : unsigned char { kExact, kInt8, kFp8, kInt4 };

/// Where the prompt is cut: kEven (KVR-E); kSearched (KVR-S) and kPredicted (KVR-P), from the table that `runahead
/// tune --search` measured; kAuto, by what is known best: the table, the cost profile of `runahead tune --profile`,
/// or a cost model of the model's sizes alone; kManual (given fractions).
enum class PartitionKind : unsigned char { kEven, kSearched, kPredicted, kAuto, kManual };

// Throw ConfigError for a number that the enum does not have.
RUNAHEAD_API std::string_view Name(Strategy strategy);   // "single", "runahead", "tsp", "tsp-causal"
RUNAHEAD_API std::string_view Name(Topology topology);   // "chain", "direct"
RUNAHEAD_API std::string_view Name(Gather gather);       // "copies", "nccl"
RUNAHEAD_API std::string_view Name(WireFormat format);   // "exact", "int8", "fp8", "int4"
RUNAHEAD_API std::string_view Name(PartitionKind kind);  // "even", "searched", "predicted", "auto", "manual"

// All names that can be asked for, for messages and help: "single, runahead, tsp, tsp-causal".
RUNAHEAD_API std::string StrategyNames();
RUNAHEAD_API std::string TopologyNames();
RUNAHEAD_API std::string GatherNames();
RUNAHEAD_API std::string WireNames();       // with "auto" before them
RUNAHEAD_API std::string PartitionNames();  // without "manual", which is asked for by fractions

// Throw ConfigError naming `text` and what is known.
RUNAHEAD_API Strategy ParseStrategy(std::string_view text);
RUNAHEAD_API Topology ParseTopology(std::string_view text);
RUNAHEAD_API Gather ParseGather(std::string_view text);
RUNAHEAD_API std::optional<WireFormat> ParseWire(std::string_view text);  // nothing for "auto"

/// A partition as asked for: "even", "searched", "predicted", "auto", or positive fractions "5,4,3" of any sum.
struct RUNAHEAD_API PartitionRequest {
  PartitionKind kind = PartitionKind::kAuto;
  std::vector<double> fractions;  // kManual: one for each rank

  /// Throws ConfigError naming `text`.
  static PartitionRequest Parse(std::string_view text);
};

struct PrefillOptions {
  Strategy strategy = Strategy::kRunahead;
  std::optional<Topology> topology;  // empty: what the plan says with kAuto, kChain otherwise
  PartitionRequest partition;
  int ranks = 0;                 // use the first so many; 0: all of the engine, or with kAuto those that help
  bool record_timeline = false;  // fill PrefillReport::timeline, or RequestStats::timeline
  Gather gather = Gather::kCopies;
};

}  // namespace runahead
