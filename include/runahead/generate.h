// From a prompt to a continuation: sampling, end-of-sequence, stop strings and streaming.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/engine.h"
#include "runahead/export.h"
#include "runahead/tokenizer.h"

namespace runahead {

/// How a token is drawn from logits. The defaults are greedy.
struct SamplingOptions {
  double temperature = 0;  // 0: always the likeliest token
  int top_k = 0;           // keep the k likeliest; 0: all
  double top_p = 1;        // then the smallest set whose probability reaches p, in (0, 1]
  uint64_t seed = 0;
};

struct GenerationOptions {
  int max_new_tokens = 128;
  SamplingOptions sampling;
  std::vector<int32_t> eos;       // any of these ends the text and is not part of it
  std::vector<std::string> stop;  // any of these ends the text and is not part of it; needs a tokenizer
};

enum class FinishReason : unsigned char { kLength, kEndOfSequence, kStopString };

RUNAHEAD_API std::string_view Name(FinishReason reason);  // "length", "eos", "stop"

struct Generation {
  PrefillReport prefill;
  std::vector<int32_t> ids;  // new tokens only
  std::string text;          // text of `ids`; empty without a tokenizer
  FinishReason finish = FinishReason::kLength;
  double tpot_ms = 0;                // mean time per output token after the first; 0 when there is none
  std::vector<float> prompt_logits;  // logits of the prompt's last position, [vocab]
};

/// The ids that end a text, by generation_config.json or config.json of `model_dir` and by its tokenizer, which may
/// be null. Throws ConfigError naming file, field and value, and IoError.
RUNAHEAD_API std::vector<int32_t> EndTokens(const std::filesystem::path& model_dir, const Tokenizer* tokenizer);

/// Prefills `prompt` and goes on until an end. `tokenizer` may be null: then there is no text. `on_text` may be
/// empty; it gets the text piece by piece as it becomes final, never a part of a character or of a stop string. Stops
/// early, as kLength, when the session is full. Throws ConfigError for options out of range, and what Session throws.
RUNAHEAD_API Generation Generate(Session& session, const Tokenizer* tokenizer, std::span<const int32_t> prompt,
                                 const PrefillOptions& prefill, const GenerationOptions& options,
                                 const std::function<void(std::string_view)>& on_text = {});

}  // namespace runahead
