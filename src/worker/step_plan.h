// What a rank is told to do in one step, and what it answers: values only, so that they cross a thread or a wire
// alike.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runahead/generate.h"
#include "runahead/options.h"
#include "runahead/request.h"
#include "runahead/timeline.h"

namespace runahead {

using SequenceId = uint64_t;
using PageList = std::vector<int32_t>;

/// Consecutive tokens of one sequence.
struct ChunkPlan {
  SequenceId sequence = 0;
  int64_t begin = 0;            // position of the first token
  std::vector<int32_t> tokens;  // ids
  PageList pages;               // pages of this rank's cache, of positions [0, end) at least
  bool long_angles = false;     // RopeSpec::IsLong of the sequence
  bool draw = false;            // whether the next token is drawn from the last one's logits

  [[nodiscard]] int64_t rows() const { return std::ssize(tokens); }
  [[nodiscard]] int64_t end() const { return begin + rows(); }
};

/// A prompt phase, or one round of it, that several ranks share; all its members are told the same.
struct GangPlan {
  std::vector<int> members;  // ranks, in the order of their chunks; the last one holds all earlier rows
  Strategy strategy = Strategy::kRunahead;
  Topology topology = Topology::kChain;
  std::vector<int64_t> cuts;    // [members + 1], from the rows that are there already to the round's end
  std::vector<int64_t> held;    // [members], rows that each holds already; the others before cuts[0] are sent first
  std::vector<PageList> pages;  // [members]
  std::vector<WireFormat> wire{};  // [members][members], from one to another; empty: all exact
};

/// How tokens of a sequence are drawn, from this step on.
struct SamplerPlan {
  SequenceId sequence = 0;
  SamplingOptions options;
  std::vector<std::pair<int32_t, float>> logit_bias;
  int logprobs = -1;            // Request::logprobs
  std::vector<int32_t> prompt;  // ids that the penalties know of; empty where there are none
  std::vector<int32_t> drawn;   // ids that were drawn already, on this rank or another
};

/// The first `rows` rows of one page that become those of another.
struct PageCopy {
  int32_t from = 0;
  int32_t to = 0;
  int64_t rows = 0;
};

/// One step of one rank, in the order of its fields.
struct StepPlan {
  uint64_t step = 0;
  std::vector<SequenceId> ended;      // sequences whose samplers go
  std::vector<SamplerPlan> samplers;  // sequences that are new here
  std::vector<PageCopy> copies;
  std::vector<ChunkPlan> chunks;            // run together
  std::shared_ptr<const GangPlan> gang;     // of chunks[0], which is then the only one; nullptr: this rank alone
  int member = 0;                           // this rank's place among the gang's members
  bool record_timeline = false;             // of a gang's member: fill StepResult::timeline
  std::shared_ptr<std::atomic<bool>> stop;  // once set the step ends at the next layer, with nothing drawn
};

/// A token that was drawn.
struct Drawn {
  SequenceId sequence = 0;
  TokenLogprob token;
  std::vector<TokenLogprob> likely;  // Request::logprobs of them
  std::string error;                 // why there is no token; empty: there is one
};

struct StepResult {
  uint64_t step = 0;
  int rank = 0;
  bool stopped = false;        // it ended early, as asked: nothing of it counts
  std::string error;           // why it failed, with the rank's name; empty: it did not
  bool device_failed = false;  // the rank's device, for good
  bool link_failed = false;    // its rows or those of others did not arrive
  bool lost = false;           // its rank is gone, which its own process cannot say: nothing of it counts
  std::vector<Drawn> drawn;
  double begin_s = 0;  // time on Crew's clock at which it began, s
  double seconds = 0;  // time of the step, s
  double wait_s = 0;   // the part of it in which the rank waited for rows of others, s
  int64_t bytes_sent = 0;
  double wire_bound = 0;                // PrefillReport::wire_bound of what it sent
  std::vector<TimelineEvent> timeline;  // from begin_s on; peers are places in the gang
};

}  // namespace runahead
