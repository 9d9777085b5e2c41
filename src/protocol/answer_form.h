// What an answer looks like: the JSON of whole answers and of the events of streams.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/request.h"

namespace runahead::protocol {

/// What every answer of a request opens with.
struct AnswerName {
  bool chat = false;
  std::string id;           // "cmpl-..." or "chatcmpl-..."
  int64_t created = 0;      // Unix time, s
  std::string model;        // the name that clients ask for
  std::string fingerprint;  // names the program that answers
};

/// Tokens that a request took so far.
struct Usage {
  int64_t prompt_tokens = 0;  // of each prompt once, however many choices it has
  int64_t cached_tokens = 0;
  int64_t new_tokens = 0;
};

/// One choice that ended.
struct WholeChoice {
  std::string text;
  std::string logprobs;  // JSON; empty: not wanted
  FinishReason finish = FinishReason::kLength;
};

/// How far the prompt phase of a choice came, in the form of llama.cpp's clients.
struct PromptProgress {
  int64_t total = 0;
  int64_t cache = 0;
  int64_t processed = 0;         // cached ones too
  double time_ms = 0;            // since the request came, ms
  double predicted_left_ms = 0;  // predicted time until the first token, ms; 0: nothing is known
};

/// The reason as clients know it: "stop" or "length"; "cancelled" and "error" are for people who look on.
std::string_view FinishName(FinishReason finish);

std::string UsageJson(const Usage& usage);

/// The `runahead` field of an answer: what its first choice took.
std::string StatsJson(const RequestStats& stats);

/// "data: ...\n\n"
std::string ServerSentEvent(std::string_view data);

/// Writes answers of one request. Immutable; all give JSON.
class AnswerForm {
 public:
  explicit AnswerForm(const AnswerName& name);

  [[nodiscard]] std::string Whole(const std::vector<WholeChoice>& choices, const Usage& usage,
                                  const RequestStats& stats) const;

  // Chunks of a stream. `more`: further fields with a comma before them, or empty.

  /// Chats begin each choice with it.
  [[nodiscard]] std::string RoleChunk(int index, std::string_view more) const;
  [[nodiscard]] std::string ProgressChunk(int index, const PromptProgress& progress, std::string_view more) const;
  /// `logprobs`: JSON; empty: not wanted.
  [[nodiscard]] std::string TextChunk(int index, std::string_view text, std::string_view logprobs,
                                      std::string_view more) const;
  [[nodiscard]] std::string FinishChunk(int index, FinishReason finish, std::string_view more) const;
  /// Without choices.
  [[nodiscard]] std::string LastChunk(std::string_view more) const;

 private:
  [[nodiscard]] std::string Chunk(int index, std::string_view delta, std::string_view logprobs,
                                  std::string_view finish, std::string_view more) const;

  bool chat_;
  std::string whole_;  // {"id":...,"choices":[
  std::string chunk_;
};

}  // namespace runahead::protocol
