// A request on its way through the scheduler.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "schedule/crew.h"
#include "schedule/rank_pages.h"

namespace runahead {

struct Sequence {
  SequenceId id = 0;
  Request request;  // without its prompt
  std::unique_ptr<Listener> listener;
  std::vector<std::unique_ptr<Listener>> others;  // of further choices, which begin once the prompt has been read
  std::vector<int32_t> tokens;                    // the prompt, then the answer so far
  int64_t prompt_tokens = 0;
  int64_t most_rows = 0;  // rows of prompt and answer together
  bool long_angles = false;
  GangChoice choice;
  bool together = false;    // it waits for a gang
  double waiting_work = 0;  // FLOPs of all its tokens, while it waits
  int64_t archived = 0;     // tokens of its prompt whose rows an archive has, as it came; 0 once they were asked for
  bool loading = false;     // they are on their way: it waits in no queue
  int64_t saved = 0;        // tokens whose rows were given to the archive

  // Where it is: nowhere while it waits.
  int rank = -1;                 // the rank that holds all its rows
  HeldPages held;                // its pages there
  int64_t done = 0;              // rows that are complete there
  std::optional<PageCopy> copy;  // to be made before its first step
  int64_t valid_from = 0;        // PrefixCache::Insert
  bool answering = false;        // its prompt phase is over
  bool in_flight = false;        // a step works on it
  bool cancelled = false;
  int broken_rounds = 0;  // rounds of its prompt whose links failed
  int sampler_on = -1;    // the rank that has its sampler; -1: none yet

  double submitted_s = 0;
  double reading_s = 0;   // time at which it was placed last
  int64_t read_from = 0;  // rows that were there then
  double begun_s = -1;
  double first_token_s = -1;
  double last_token_s = -1;
  RequestStats stats;

  /// Tokens whose rows are still to be computed before the next one can be drawn.
  [[nodiscard]] int64_t missing() const { return std::ssize(tokens) - done; }
  [[nodiscard]] bool reuses() const { return request.reuse_prefix; }
  [[nodiscard]] int64_t new_tokens() const { return std::ssize(tokens) - prompt_tokens; }
  /// Those that come first are smaller.
  [[nodiscard]] std::pair<int, SequenceId> order() const { return {-request.priority, id}; }
};

/// Puts `sequence` into `list`, in which those that come first are first.
inline void InsertByAge(std::vector<Sequence*>& list, Sequence& sequence) {
  const auto later = [](const Sequence* a, const Sequence* b) { return a->order() < b->order(); };
  list.insert(std::upper_bound(list.begin(), list.end(), &sequence, later), &sequence);
}

}  // namespace runahead
