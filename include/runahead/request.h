// Many requests on one engine at once: what is asked, what comes back, and the handle of one that runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runahead/export.h"
#include "runahead/generate.h"
#include "runahead/options.h"
#include "runahead/timeline.h"

namespace runahead {

/// A prompt and how it is answered.
struct Request {
  static constexpr int kMostChoices = 1024;

  std::vector<int32_t> prompt;  // token ids, at least one
  GenerationOptions generation;
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, and what is added to its logit before the draw
  int choices = 1;  // answers, 1 to kMostChoices, with the seeds seed, seed + 1, ...; the prompt is read once for all
  int logprobs = -1;           // likeliest tokens that are reported with each token; -1: none
  int priority = 0;            // higher ones begin first; equal ones in the order of arrival
  double ttft_deadline_s = 0;  // refused when the first token is predicted to come later, s; 0: no matter when
  PrefillOptions prefill;      // of its prompt phase; `ranks` of the engine's that are alike: any so many of them
  bool reuse_prefix = true;    // take rows of the prompt from the cache where it has them
};

/// A token, with the natural logarithm of its probability at temperature 1 before penalties.
struct TokenLogprob {
  int32_t id = -1;
  float logprob = 0;
};

/// What a finished request took. Choices behind the first have no tokens of the prompt, so that sums are right.
struct RequestStats {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;     // tokens of the prompt whose rows were in the cache
  int64_t new_tokens = 0;        // tokens of the answer
  double queued_ms = 0;          // time from Submit until its prompt phase began, ms
  double ttft_ms = 0;            // time from Submit to the first token, ms
  double tpot_ms = 0;            // mean time per output token after the first, ms; 0: there is none
  double predicted_ttft_ms = 0;  // predicted when its prompt phase began, ms; 0: nothing is measured
  double longest_pause_ms = 0;   // longest time between two of its tokens, ms
  std::vector<int> members;      // ranks of the prompt phase, in the order of their chunks
  std::vector<int64_t> cuts;     // cut points of the first round, from the cached tokens on
  int rounds = 0;                // parts in which its prompt was read; 1: `cuts` are those of all of it
  std::vector<WireFormat> wire;  // PrefillReport::wire of that round
  int64_t bytes_sent = 0;        // bytes of rows that its ranks sent each other
  double wire_bound = 0;         // PrefillReport::wire_bound
  /// What the ranks did for its prompt phase, in milliseconds since Submit, by their numbers in the engine; with
  /// PrefillOptions::record_timeline. Where several ranks read together, layer by layer in each round; a step of one
  /// rank, which may read for others too, is one event.
  std::vector<TimelineEvent> timeline;
};

/// One thing that happened to a request.
struct RequestEvent {
  enum class Kind : unsigned char { kProgress, kToken, kEnd };
  Kind kind = Kind::kToken;
  int choice = 0;  // which answer it is about, from 0 on

  // kProgress: the prompt phase begins, or a part of it is done. A request that made room for another begins again.
  int64_t prompt_done = 0;       // tokens whose rows are computed or were in the cache
  int64_t prompt_total = 0;      // tokens of the prompt
  int64_t cached_tokens = 0;     // tokens of the prompt whose rows were in the cache
  double predicted_left_ms = 0;  // predicted time until the first token, ms; 0: nothing is known, or none is left
  std::vector<int> members;      // ranks that read the prompt

  // kToken: one more token of the answer.
  TokenLogprob token;                // logprob is 0 unless asked for
  std::vector<TokenLogprob> likely;  // Request::logprobs of them, likeliest first
  std::string text;                  // what of the text is final now; also with kEnd; empty without a tokenizer

  // kEnd: nothing comes behind it, or where there are several choices, nothing of this one.
  FinishReason finish = FinishReason::kLength;
  std::string error;  // why it failed; then `finish` is kError
  RequestStats stats;
};

/// Is told the events of a request one after the other, kEnd of each choice in any case, by a thread of the engine
/// that all requests share: it shall be brief, wait for nothing, and not destroy what holds the engine, such as the
/// handle. The first call may come before Submit returns. One that throws is not called again, and its request is
/// cancelled.
using EventSink = std::function<void(RequestEvent)>;

class RequestState;

/// A request that was submitted. Move-only. Next by one thread at a time; Cancel from any thread. A handle that is
/// destroyed cancels its request.
class RUNAHEAD_API RequestHandle {
 public:
  explicit RequestHandle(std::shared_ptr<RequestState> state);
  ~RequestHandle();
  RequestHandle(RequestHandle&&) noexcept;
  RequestHandle& operator=(RequestHandle&&) noexcept;

  /// The next event; blocks until there is one, or for `patience` at most: nothing then. Throws ConfigError behind
  /// the last kEnd, and for a request whose events go to a sink.
  std::optional<RequestEvent> Next(std::chrono::milliseconds patience);
  /// Asks for an early end of all choices: the ranks stop within a layer, kEnd comes with FinishReason::kCancelled.
  /// Does nothing when it has ended.
  void Cancel();
  /// The time from Submit to the first token as predicted by Submit, waiting included, ms; 0: nothing is measured.
  [[nodiscard]] double predicted_ttft_ms() const;

 private:
  std::shared_ptr<RequestState> state_;
};

}  // namespace runahead
