// The answer to a request, gathered from its events, and the JSON object that tells it.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/request.h"

namespace runahead::cli {

struct AnswerToken {
  TokenLogprob token;
  std::vector<TokenLogprob> likely;  // likeliest first; empty unless asked for
};

struct Answer {
  std::vector<AnswerToken> tokens;
  std::string text;  // empty without a tokenizer
  FinishReason finish = FinishReason::kLength;
  std::string error;  // why it failed; empty: it did not
  RequestStats stats;

  [[nodiscard]] std::vector<int32_t> ids() const;
  /// Adds what `event` tells; true when it was the last one.
  bool Add(RequestEvent event);
};

/// Waits for the end of a request. `stop` is asked now and then whether to cancel it. `on_text`, which may be empty,
/// gets the text piece by piece. Throws what they throw; the request is cancelled then, with its handle.
Answer AwaitAnswer(RequestHandle handle, const std::function<bool()>& stop,
                   const std::function<void(std::string_view)>& on_text = {});

/// The answer's fields: `ids`, `text`, `finish`, `prompt_tokens`, `cached_tokens`, `ttft_ms`, `tpot_ms`, and with
/// `logprobs` those of each token; or `error` alone.
nlohmann::ordered_json AnswerJson(const Answer& answer, bool logprobs);

/// `json` in one line, whatever its texts hold: the signs too that Unicode has for a line's end are escaped, since
/// some readers of lines split there.
std::string OneLine(const nlohmann::ordered_json& json);

}  // namespace runahead::cli
