// What process 0 of a group has the ranks of the others do beside steps, and what they answer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "runahead/options.h"
#include "runahead/timeline.h"
#include "worker/short_run.h"

namespace runahead {

/// RankWork::kind.
enum class WorkKind : uint32_t {
  kPhase = 1,       // PhaseOrder; answered with PhaseAnswer
  kToken = 2,       // TokenOrder; answered with logits
  kEndSession = 3,  // number of a session
  kShortRuns = 4,   // ShortRunsOrder; answered with Stretches of the members there, and goes on until it is stopped
  kHops = 5,        // HopsOrder; answered with HopTimes of the pairs whose first rank is there
  kEndProbe = 6,    // number of a probe
  kEndLinks = 7,    // id of links
};

/// A prompt phase of a session.
struct PhaseOrder {
  uint64_t session = 0;  // its number at process 0
  int64_t capacity = 0;  // tokens that it has room for
  std::vector<int32_t> tokens;
  Strategy strategy = Strategy::kSingle;
  Topology topology = Topology::kChain;
  std::vector<int> members;   // ranks, in the order of their chunks
  std::vector<int64_t> cuts;  // [members + 1]
  uint64_t links = 0;         // id of the links among the members; 0: all are in one process
  bool record_timeline = false;
  std::vector<WireFormat> wire{};  // [members][members], from one to another; empty: all exact

  [[nodiscard]] int64_t rows(size_t member) const { return cuts[member + 1] - cuts[member]; }
};

struct PhaseAnswer {
  std::vector<TimelineEvent> timeline;  // ranks and peers are places among the members
  std::vector<float> logits;            // behind the prompt; empty: the last member is elsewhere
  uint64_t bytes_sent = 0;              // bytes of rows that left the members there
  double wire_bound = 0;                // PrefillReport::wire_bound of them
};

/// One more token of a session, on the rank that holds all of its rows.
struct TokenOrder {
  uint64_t session = 0;
  int64_t capacity = 0;
  int rank = 0;
  int64_t position = 0;
  int32_t token = 0;
};

/// Members of a probe that make `run` at the same time, each `times` times and then until the others have.
struct ShortRunsOrder {
  uint64_t probe = 0;  // its number at process 0
  int64_t longest = 0;
  std::vector<int> members;
  ShortRun run;
  int times = 1;
};

/// Rows that go from the first rank of each pair to the second, and one row back, again and again. No rank is in two
/// pairs.
struct HopsOrder {
  uint64_t probe = 0;
  int64_t longest = 0;
  std::vector<int> members;
  uint64_t links = 0;
  std::vector<std::pair<int, int>> pairs;
  int64_t rows = 1;
  int rounds = 1;
};

/// Seconds of each round of one pair, as its first rank saw them.
struct HopTimes {
  int from = 0;
  int to = 0;
  std::vector<double> round_s;
};

std::string Encode(const PhaseOrder& order);
std::string Encode(const PhaseAnswer& answer);
std::string Encode(const TokenOrder& order);
std::string Encode(const ShortRunsOrder& order);
std::string Encode(const HopsOrder& order);
std::string Encode(const std::vector<Stretches>& seen);
std::string Encode(const std::vector<HopTimes>& times);
std::string Encode(const std::vector<float>& logits);

// Bytes that may be anything. Each fails naming the field that makes no sense. Ranks, ids and sizes are for whoever
// knows their ranges to check.
Status Decode(std::string_view bytes, PhaseOrder& order);
Status Decode(std::string_view bytes, PhaseAnswer& answer);
Status Decode(std::string_view bytes, TokenOrder& order);
Status Decode(std::string_view bytes, ShortRunsOrder& order);
Status Decode(std::string_view bytes, HopsOrder& order);
Status Decode(std::string_view bytes, std::vector<Stretches>& seen);
Status Decode(std::string_view bytes, std::vector<HopTimes>& times);
Status Decode(std::string_view bytes, std::vector<float>& logits);

}  // namespace runahead
