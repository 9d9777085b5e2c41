// The shipped demo model: its ids and logits equal transformers', and it finds facts whose rows another rank
// computed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "base/source_dir.h"
#include "demo/harbour_log.h"
#include "runahead/generate.h"

namespace runahead {
namespace {

const std::filesystem::path kModel = std::filesystem::path(SourceDir()) / "models" / "demo";
constexpr int kReplyTokens = 24;

const Json& Golden() {
  static const Json golden = LoadJson(kModel / "golden.json");
  return golden;
}

Engine LoadDemo(const std::string& devices, const std::string& dtype) {
  EngineOptions options;
  options.devices = devices;
  options.threads_per_rank = 1;
  options.dtype = dtype;
  return Engine::Load(kModel, options);
}

/// The prompt of a golden entry, written anew from its seed.
std::string PromptOf(const Json& entry) {
  const demo::HarbourLog log =
      demo::WriteHarbourLog(entry.at("seed").get<uint64_t>(), entry.at("target_bytes").get<size_t>());
  return log.text + "\n" + entry.at("question").get<std::string>();
}

Generation Ask(const Engine& engine, const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
               const PrefillOptions& prefill) {
  Session session = engine.NewSession(static_cast<int64_t>(prompt.size()) + kReplyTokens);
  GenerationOptions options;
  options.max_new_tokens = kReplyTokens;
  options.stop = {".", "\n"};
  return Generate(session, &tokenizer, prompt, prefill, options);
}

TEST(DemoModel, IdsAndLogitsEqualTransformersOnAnyNumberOfRanks) {
  const Json& golden = Golden().at("short");
  const Tokenizer tokenizer = Tokenizer::Load(kModel);
  const std::vector<int32_t> ids = tokenizer.Encode(PromptOf(golden));
  ASSERT_EQ(ids, golden.at("ids").get<std::vector<int32_t>>());

  const auto expected = golden.at("logits").get<std::vector<double>>();
  double largest = 0;
  for (const double logit : expected) largest = std::max(largest, std::abs(logit));
  const Engine engine = LoadDemo("cpu:5", "f32");
  for (const int ranks : {1, 2, 3, 5}) {
    PrefillOptions options;
    options.ranks = ranks;
    const Generation reply = Ask(engine, tokenizer, ids, options);
    ASSERT_EQ(reply.prompt_logits.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(reply.prompt_logits[i], expected[i], 1e-4 * largest)
          << "logit " << i << " on " << ranks << " ranks";
    }
    EXPECT_EQ(reply.text + ".", golden.at("reply").get<std::string>());
  }
}

TEST(DemoModel, FindsAFactOfTheFirstQuarterOfAnEightThousandTokenPrompt) {
  const Json& golden = Golden().at("long");
  const Tokenizer tokenizer = Tokenizer::Load(kModel);
  const std::vector<int32_t> ids = tokenizer.Encode(PromptOf(golden));
  ASSERT_EQ(ids.size(), golden.at("prompt_tokens").get<size_t>());
  const Engine engine = LoadDemo("cpu:3", "bf16");
  for (const Topology topology : {Topology::kChain, Topology::kDirect}) {
    PrefillOptions options;
    options.topology = topology;
    EXPECT_EQ(Ask(engine, tokenizer, ids, options).text + ".", golden.at("reply").get<std::string>());
  }
}

TEST(DemoModel, AnswersFreshQuestionsOverSeveralRanks) {
  const Tokenizer tokenizer = Tokenizer::Load(kModel);
  const Engine engine = LoadDemo("cpu:4", "");
  for (uint64_t seed = 900; seed < 910; ++seed) {
    const demo::HarbourLog log = demo::WriteHarbourLog(seed, 8000);
    const demo::Question question = demo::FirstQuarterQuestions(log).front();
    const std::vector<int32_t> ids = tokenizer.Encode(demo::PromptFor(log, question));
    const Generation reply = Ask(engine, tokenizer, ids, {});
    EXPECT_EQ(reply.prefill.ranks(), 4);
    EXPECT_TRUE(demo::IsRightAnswer(question, reply.text))
        << question.text << reply.text << ", not " << question.answer;
  }
}

}  // namespace
}  // namespace runahead
