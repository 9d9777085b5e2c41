// Answers a prompt with two ranks of this process: example MODEL_FOLDER PROMPT
#include <algorithm>
#include <iostream>

#include "runahead/engine.h"
#include "runahead/tokenizer.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw runahead::ConfigError("usage: example MODEL_FOLDER PROMPT");
  runahead::EngineOptions options;
  options.devices = "cpu:2";
  const runahead::Engine engine = runahead::Engine::Load(argv[1], options);
  const runahead::Tokenizer tokenizer = runahead::Tokenizer::Load(argv[1]);

  const std::vector<int32_t> prompt = tokenizer.Encode(argv[2]);
  const int64_t new_tokens = 16;
  runahead::Session session = engine.NewSession(static_cast<int64_t>(prompt.size()) + new_tokens);
  // KV-Runahead, cut where both ranks finish together.
  const runahead::PrefillReport report = session.Prefill(prompt);
  std::cout << prompt.size() << " tokens on " << report.ranks() << " ranks in " << report.ttft_ms << " ms:";

  runahead::StreamDecoder text(tokenizer);
  for (int i = 0; i < new_tokens; ++i) {
    const std::span<const float> logits = session.logits();
    const auto likeliest = std::max_element(logits.begin(), logits.end()) - logits.begin();
    if (likeliest == tokenizer.eos_id()) break;
    std::cout << text.Feed(static_cast<int32_t>(likeliest));
    session.Append(static_cast<int32_t>(likeliest));
  }
  std::cout << text.Flush() << "\n";
} catch (const runahead::Error& error) {
  std::cerr << "example: " << error.what() << "\n";
  return 1;
}
