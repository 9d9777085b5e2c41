// The document that a newcomer can ask about: a page of the demo's log book, written when it is first asked for.
#include <nlohmann/json.hpp>
#include <string>

#include "demo/harbour_log.h"
#include "server/page/page_files.h"

namespace runahead::server {
namespace {

constexpr uint64_t kSeed = 1881;
constexpr size_t kBytes = 24'000;  // about 6,000 of the demo model's 8,192 tokens: room for some questions
constexpr size_t kQuestions = 12;

std::string WriteSample() {
  const demo::HarbourLog log = demo::WriteHarbourLog(kSeed, kBytes);
  nlohmann::ordered_json sample = {{"name", "harbour log"}, {"text", log.text}};
  nlohmann::ordered_json questions = nlohmann::ordered_json::array();
  for (const demo::Question& question : log.questions) {
    if (questions.size() == kQuestions) break;
    questions.push_back(question.text);
  }
  sample["questions"] = std::move(questions);
  return sample.dump();
}

}  // namespace

std::string_view SampleDocument() {
  static const std::string sample = WriteSample();
  return sample;
}

}  // namespace runahead::server
