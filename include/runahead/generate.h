// From a prompt to a continuation: sampling, end-of-sequence, stop strings and streaming.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/engine.h"
#include "runahead/export.h"
#include "runahead/model.h"
#include "runahead/tokenizer.h"

namespace runahead {

/// How a token is drawn from logits. The defaults are greedy. Penalties change the logits first, whatever the
/// temperature; then temperature, top_k, top_p and min_p apply in this order (as in HF transformers).
struct SamplingOptions {
  double temperature = 0;  // 0: always the likeliest token
  int top_k = 0;           // keep the k likeliest; 0: all
  double top_p = 1;        // then the smallest set whose probability reaches p, in (0, 1]
  uint64_t seed = 0;
  double min_p = 0;  // then those at least so many times as likely as the likeliest, in [0, 1]
  // Divides the logits above 0 of tokens of the prompt and of the continuation, and multiplies those below, once
  // however often a token came (Keskar et al. 2019, section 4.1; HF transformers). Above 0; 1: none.
  double repetition_penalty = 1;
  // Taken away from the logits of tokens of the continuation: once for having come, and for each time it came (as
  // OpenAI's API has them). In [-2, 2]; 0: none.
  double presence_penalty = 0;
  double frequency_penalty = 0;
};

struct GenerationOptions {
  int max_new_tokens = 128;
  SamplingOptions sampling;
  std::vector<int32_t> eos;  // any of these ends the text and is not part of it
  // Any of these ends the text and is not part of it; needs a tokenizer. Special tokens, which are no part of a text,
  // count as they are spelt: "<|im_end|>" alone is that token, and "\n<|im_end|>" that token behind a line's end.
  std::vector<std::string> stop;
  std::vector<int32_t> stop_ids;  // any of these ends the text and is not part of it, as the user's wish
};

/// Why a text ended: at max_new_tokens or the session's capacity, at one of `eos`, at one of `stop` or `stop_ids`;
/// and of a Request, because it was cancelled, or because it failed.
enum class FinishReason : unsigned char { kLength, kEndOfSequence, kStop, kCancelled, kError };

/// Throws ConfigError for a number that the enum does not have.
RUNAHEAD_API std::string_view Name(FinishReason reason);  // "length", "eos", "stop", "cancelled", "error"

struct Generation {
  PrefillReport prefill;
  std::vector<int32_t> ids;  // new tokens only
  std::string text;          // text of `ids`; empty without a tokenizer
  FinishReason finish = FinishReason::kLength;
  double tpot_ms = 0;                // mean time per output token after the first; 0 when there is none
  std::vector<float> prompt_logits;  // logits of the prompt's last position, [vocab]
};

/// The ids that end a text, by generation_config.json or config.json of `model` and by its tokenizer, which may be
/// null. Throws ConfigError naming file, field and value, and IoError.
RUNAHEAD_API std::vector<int32_t> EndTokens(const Model& model, const Tokenizer* tokenizer);

/// Prefills `prompt` and goes on until an end. `tokenizer` may be null: then there is no text. `on_text` may be
/// empty; it gets the text piece by piece as it becomes final, never a part of a character or of a stop string.
/// `on_id` may be empty; it gets each of Generation::ids as soon as it is chosen. Stops early, as kLength, when the
/// session is full. Throws ConfigError for options out of range, and what Session throws.
RUNAHEAD_API Generation Generate(Session& session, const Tokenizer* tokenizer, std::span<const int32_t> prompt,
                                 const PrefillOptions& prefill, const GenerationOptions& options,
                                 const std::function<void(std::string_view)>& on_text = {},
                                 const std::function<void(int32_t)>& on_id = {});

}  // namespace runahead
