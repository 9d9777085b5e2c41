#include "batch_resume.h"

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/json.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

/// Finds the answers that lines are.
class AnswerFinder {
 public:
  AnswerFinder(std::string file, const BatchInput& input)
      : file_(std::move(file)), input_(input), there_(NoAnswers(input)) {
    for (size_t i = 0; i < input.requests.size(); ++i) request_of_id_[input.requests[i].id.dump()] = i;
  }

  void Add(std::string_view line, int64_t number) {
    const std::string origin = fmt::format("{}:{}", file_, number);
    const Json json = ParseJson(line, origin);
    const JsonObject object(json, origin);
    const auto found = request_of_id_.find(object.At("id").dump());
    if (found == request_of_id_.end()) {
      object.Refuse("id", fmt::format("expected an id of {}; this file holds other answers", input_.name));
    }
    const BatchRequest& request = input_.requests[found->second];
    const int64_t index = object.Int("index", 0, request.choices - 1, 0);
    const auto prompt_tokens = static_cast<int64_t>(request.request.prompt.size());
    if (object.Int("prompt_tokens", 0, INT64_MAX, prompt_tokens) != prompt_tokens) {
      object.Refuse("prompt_tokens", fmt::format("expected {}, the tokens of line {} of {}; this file holds other "
                                                 "answers",
                                                 prompt_tokens, request.line, input_.name));
    }
    there_[found->second][static_cast<size_t>(index)] = true;
  }

  [[nodiscard]] const AnswersThere& there() const { return there_; }

 private:
  std::string file_;
  const BatchInput& input_;
  AnswersThere there_;
  std::unordered_map<std::string, size_t> request_of_id_;  // by the id as JSON
};

/// Whether `tail` can be what a killed run left of an answer's line.
bool BeginsAsAnAnswer(std::string_view tail) {
  constexpr std::string_view kBegin = R"({"id":)";
  return tail.substr(0, kBegin.size()) == kBegin.substr(0, tail.size());
}

}  // namespace

AnswersThere NoAnswers(const BatchInput& input) {
  AnswersThere there;
  there.reserve(input.requests.size());
  for (const BatchRequest& request : input.requests) there.emplace_back(static_cast<size_t>(request.choices), false);
  return there;
}

AnswersThere AnswersIn(AppendedFile& file, const BatchInput& input) {
  AnswerFinder finder(file.path().string(), input);
  const std::string tail = file.ReadLines([&](std::string_view line, int64_t number) { finder.Add(line, number); });
  if (!BeginsAsAnAnswer(tail)) {
    throw ConfigError(fmt::format("{}: its last line has no end and is no answer; this file holds something else",
                                  file.path().string()));
  }
  if (!tail.empty()) file.CutTail();
  return finder.there();
}

}  // namespace runahead::cli
