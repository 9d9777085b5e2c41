// Prints harbour logs with their questions as JSON lines, for the training of the demo model.
//
//   generate_logs --seed S --count N --min-bytes A --max-bytes B
//
// Log i of the run has seed S + i and a target drawn evenly from [A, B]. Each line:
//   {"seed": 7, "target_bytes": 3000, "log": "...", "questions": [{"ask": "Question: ...\nAnswer:",
//   "answer": "berth 12",
//    "first_quarter": true, "fact_end": 611}, ...]}
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "demo/harbour_log.h"

namespace {

using runahead::demo::HarbourLog;
using runahead::demo::Question;

// The generator writes printable ASCII and newlines only.
std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '\n') {
      quoted += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

std::string JsonLine(uint64_t seed, size_t target_bytes) {
  const HarbourLog log = runahead::demo::WriteHarbourLog(seed, target_bytes);
  const std::vector<Question> early = runahead::demo::FirstQuarterQuestions(log);
  std::string line = "{\"seed\": " + std::to_string(seed) + ", \"target_bytes\": " + std::to_string(target_bytes) +
                     ", \"log\": " + Quoted(log.text) + ", \"questions\": [";
  size_t next_early = 0;  // `early` keeps the order of `questions`
  for (const Question& question : log.questions) {
    const bool is_early = next_early < early.size() && early[next_early].text == question.text;
    if (is_early) ++next_early;
    if (&question != &log.questions.front()) line += ", ";
    line += "{\"ask\": " + Quoted(AskFor(question)) + ", \"answer\": " + Quoted(question.answer) +
            ", \"first_quarter\": " + (is_early ? "true" : "false") +
            ", \"fact_end\": " + std::to_string(question.fact_end) + "}";
  }
  return line + "]}\n";
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string_view, uint64_t> flags = {
      {"--seed", 1}, {"--count", 1}, {"--min-bytes", 3000}, {"--max-bytes", 3000}};
  for (int i = 1; i < argc; i += 2) {
    const auto flag = flags.find(argv[i]);
    const char* const value = i + 1 < argc ? argv[i + 1] : "";
    const char* const value_end = value + std::strlen(value);
    if (flag == flags.end() || std::from_chars(value, value_end, flag->second).ptr != value_end ||
        value == value_end) {
      std::fprintf(stderr, "generate_logs: bad argument: %s %s\n", argv[i], value);
      return 2;
    }
  }
  const uint64_t low = flags["--min-bytes"];
  const uint64_t high = flags["--max-bytes"];
  if (low > high) {
    std::fprintf(stderr, "generate_logs: --min-bytes %llu is over --max-bytes %llu\n",
                 static_cast<unsigned long long>(low), static_cast<unsigned long long>(high));
    return 2;
  }
  for (uint64_t i = 0; i < flags["--count"]; ++i) {
    const uint64_t seed = flags["--seed"] + i;
    // A multiplicative hash of the seed spreads the targets evenly over [low, high].
    const uint64_t target = low + ((seed * 0x9E3779B97F4A7C15u) >> 32) % (high - low + 1);
    const std::string line = JsonLine(seed, target);
    if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size()) return 1;
  }
  return 0;
}
