// `runahead batch`: answers as `generate` gives them one by one, whatever ends the program meanwhile.
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "tests/cli/conversation.h"
#include "tests/cli/fixture.h"
#include "tests/report/well_formed.h"

namespace runahead {
namespace {

class BatchRunTest : public CliTest {
 protected:
  static Outcome Batch(const std::vector<Json>& requests, const std::vector<std::string>& more = {},
                       const std::string& model = Model()) {
    WriteFile(InFolder("r.jsonl"), Lines(requests));
    std::vector<std::string> arguments = {"batch", InFolder("r.jsonl"), "--model", model};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Runahead(arguments);
  }

  static std::string Lines(const std::vector<Json>& objects) {
    std::string lines;
    for (const Json& object : objects) lines += object.dump() + "\n";
    return lines;
  }

  /// The answers in `lines` by id and index.
  static std::map<std::pair<std::string, int>, Json> ByIdAndIndex(const std::string& lines) {
    std::map<std::pair<std::string, int>, Json> answers;
    size_t begin = 0;
    for (size_t end = 0; (end = lines.find('\n', begin)) != std::string::npos; begin = end + 1) {
      Json answer = Json::parse(lines.substr(begin, end - begin));
      const std::pair key(answer.at("id").dump(), answer.value("index", 0));
      EXPECT_TRUE(answers.emplace(key, std::move(answer)).second) << "twice: " << key.first;
    }
    EXPECT_EQ(begin, lines.size()) << "the last line has an end";
    return answers;
  }

  /// Mixed requests: shared begins, every way to draw.
  static std::vector<Json> MixedRequests(int count) {
    std::mt19937 random(7);
    const auto below = [&](uint32_t n) { return static_cast<int>(random() % n); };
    std::vector<int> begin(40);
    for (int& id : begin) id = below(256);
    std::vector<Json> requests;
    for (int i = 0; i < count; ++i) {
      std::vector<int> prompt(begin.begin(), begin.begin() + 20 * below(3));
      for (int more = 1 + below(17); more > 0; --more) prompt.push_back(below(256));
      Json request = {{"id", fmt::format("r{}", i)}, {"prompt", prompt}, {"max_tokens", 1 + below(20)}};
      request["temperature"] = i % 3 == 0 ? 0 : 0.9;
      if (i % 3 == 1) request["seed"] = i;
      if (i % 4 == 1) request["top_k"] = 40;
      if (i % 5 == 1) request["top_p"] = 0.8;
      if (i % 6 == 1) request["repetition_penalty"] = 1.3;
      if (i % 7 == 1) request["presence_penalty"] = 0.5;
      if (i % 2 == 1) request["ignore_eos"] = true;
      if (i % 5 == 2) request["stop"] = {"e", "a"};
      requests.push_back(std::move(request));
    }
    return requests;
  }

  static Json Alone(const Json& request) {
    std::string ids;
    for (const Json& id : request.at("prompt")) ids += (ids.empty() ? "" : ",") + id.dump();
    std::vector<std::string> arguments = {"--prompt-ids", ids, "-n", request.at("max_tokens").dump()};
    for (const auto& [field, flag] :
         std::map<std::string, std::string>{{"temperature", "--temperature"},
                                            {"seed", "--seed"},
                                            {"top_k", "--top-k"},
                                            {"top_p", "--top-p"},
                                            {"repetition_penalty", "--repetition-penalty"},
                                            {"presence_penalty", "--presence-penalty"}}) {
      if (request.contains(field)) arguments.insert(arguments.end(), {flag, request.at(field).dump()});
    }
    for (const std::string stop : request.value("stop", Json::array())) {
      arguments.insert(arguments.end(), {"--stop", stop});
    }
    if (request.value("ignore_eos", false)) arguments.emplace_back("--ignore-eos");
    return GenerateJson(arguments);
  }

  /// Waits until there is something in the file.
  static void AwaitBytes(const std::string& path) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    std::error_code error;
    while (std::filesystem::file_size(path, error) == 0 || error) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << path << " stays empty";
      std::this_thread::yield();
    }
  }

  /// A model with room for answers that take a while.
  static std::string LongModel() {
    static const std::string model = [] {
      std::string copy = CopyOfModel("long");
      Json config = LoadJson(copy + "/config.json");
      config["max_position_embeddings"] = 100'000;
      WriteFile(copy + "/config.json", config.dump());
      return copy;
    }();
    return model;
  }
};

TEST_F(BatchRunTest, AnswersAreThoseOfOneByOne) {
  const std::vector<Json> requests = MixedRequests(30);
  std::vector<Json> alone;
  for (const Json& request : requests) alone.push_back(Alone(request));
  for (const std::vector<std::string>& way :
       std::vector<std::vector<std::string>>{{"--devices", "cpu:2"},
                                             {"--devices", "cpu:3", "--kv-memory", "1MiB"},
                                             {"--concurrency", "3", "--max-pause", "1"}}) {
    const Outcome outcome = Batch(requests, way);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    const auto answers = ByIdAndIndex(outcome.out);
    ASSERT_EQ(answers.size(), requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      const Json& answer = answers.at({requests[i].at("id").dump(), 0});
      for (const char* field : {"ids", "text", "finish", "prompt_tokens"}) {
        EXPECT_EQ(answer.at(field), alone[i].at(field)) << requests[i];
      }
      EXPECT_GT(answer.at("ttft_ms").get<double>(), 0);
      EXPECT_GE(answer.at("cached_tokens").get<int>(), 0);
      EXPECT_FALSE(answer.contains("index"));
    }
  }
}

TEST_F(BatchRunTest, ChoicesHaveTheNextSeeds) {
  const Outcome outcome = Batch({{{"id", 5}, {"prompt", "abc"}, {"seed", 3}, {"n", 3}, {"ignore_eos", true}},
                                 {{"prompt", {"abc"}}, {"seed", 4}, {"ignore_eos", true}}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto answers = ByIdAndIndex(outcome.out);
  ASSERT_EQ(answers.size(), 4U);
  std::set<Json> different;
  for (int index = 0; index < 3; ++index) {
    const Json& answer = answers.at({"5", index});
    EXPECT_EQ(answer.at("index"), index);
    EXPECT_EQ(answer.at("ids").size(), 16U) << "as OpenAI's default";
    different.insert(answer.at("ids"));
  }
  EXPECT_EQ(different.size(), 3U);
  EXPECT_EQ(answers.at({"5", 1}).at("ids"), answers.at({"2", 0}).at("ids"));
}

TEST_F(BatchRunTest, LogprobsAreOfTheTokensDrawn) {
  const Outcome outcome =
      Batch({{{"prompt", "abc"}, {"max_tokens", 5}, {"temperature", 0}, {"logprobs", 4}, {"ignore_eos", true}}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json answer = Json::parse(outcome.out);
  ASSERT_EQ(answer.at("logprobs").size(), 5U);
  for (size_t i = 0; i < 5; ++i) {
    const Json& token = answer.at("logprobs")[i];
    EXPECT_EQ(token.at("id"), answer.at("ids")[i]);
    ASSERT_EQ(token.at("top").size(), 4U);
    EXPECT_EQ(token.at("top")[0].at("id"), token.at("id")) << "greedy takes the likeliest";
    EXPECT_EQ(token.at("top")[0].at("logprob"), token.at("logprob"));
    EXPECT_LT(token.at("logprob").get<double>(), 0);
    EXPECT_GE(token.at("top")[0].at("logprob").get<double>(), token.at("top")[1].at("logprob").get<double>());
  }
}

TEST_F(BatchRunTest, ABiasDecides) {
  const Outcome outcome =
      Batch({{{"prompt", "abc"}, {"max_tokens", 4}, {"temperature", 0}, {"logit_bias", {{"65", 100}}}}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(Json::parse(outcome.out).at("text"), "AAAA");
}

TEST_F(BatchRunTest, ALineHoldsNoOtherLineEnd) {
  const Outcome outcome = Batch({{{"prompt", "abc"}, {"id", "\u2028\u2029\u0085"}, {"max_tokens", 1}}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out.find(R"({"id":"\u2028\u2029\u0085",)"), 0U) << outcome.out;
  EXPECT_EQ(Json::parse(outcome.out).at("id"), "\u2028\u2029\u0085");
}

TEST_F(BatchRunTest, OneThatFailsIsAnAnswerAmongOthers) {
  const std::vector<int> beyond(50'000, 1);
  const Outcome outcome = Batch({{{"prompt", "abc"}}, {{"prompt", beyond}}, {{"prompt", "abc"}, {"id", "c"}}},
                                {"--kv-memory", "1MiB"}, LongModel());
  EXPECT_EQ(outcome.exit_code, 1);
  const auto answers = ByIdAndIndex(outcome.out);
  ASSERT_EQ(answers.size(), 3U);
  const Json& failed = answers.at({"2", 0});
  EXPECT_EQ(failed.at("finish"), "error");
  EXPECT_NE(failed.at("error").get<std::string>().find("50000"), std::string::npos) << failed;
  EXPECT_EQ(answers.at({"1", 0}).at("ids"), answers.at({"\"c\"", 0}).at("ids"));
  EXPECT_NE(outcome.err.find("1 of 3 requests failed, the first: 2: "), std::string::npos) << outcome.err;
  EXPECT_EQ(report::Count(outcome.err, "\n"), 1) << outcome.err;
}

TEST_F(BatchRunTest, GoesOnAfterAKill) {
  const std::vector<Json> requests = MixedRequests(30);
  const std::string whole = Batch(requests).out;
  const std::string output = InFolder("killed");
  {
    Conversation run(ProgramPath(),
                     {"batch", InFolder("r.jsonl"), "--model", Model(), "--output", output, "--concurrency", "1"});
    AwaitBytes(output);
    run.Signal(SIGKILL);
    EXPECT_EQ(run.End(), -1);
  }
  WriteFile(output, ReadFile(output) + R"({"id":"r29","ids":[12,)");
  const std::string before = ReadFile(output);
  const Outcome again = Batch(requests, {"--output", output});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(again.out, "");
  const std::string after = ReadFile(output);
  const size_t kept = before.rfind('\n') + 1;
  EXPECT_EQ(after.substr(0, kept), before.substr(0, kept)) << "what was there stays";
  const auto expected = ByIdAndIndex(whole);
  const auto answers = ByIdAndIndex(after);
  ASSERT_EQ(answers.size(), expected.size());
  for (const auto& [key, answer] : answers) EXPECT_EQ(answer.at("ids"), expected.at(key).at("ids")) << key.first;
}

TEST_F(BatchRunTest, AnInterruptKeepsWhatHasEnded) {
  for (const int number : {SIGINT, SIGTERM}) {
    const std::string output = InFolder(fmt::format("interrupted-{}", number));
    const auto requests = [](int tokens) {
      return Lines(
          {{{"id", "short"}, {"prompt", "a"}, {"max_tokens", 1}},
           {{"id", "long"}, {"prompt", "abc"}, {"max_tokens", tokens}, {"ignore_eos", true}, {"temperature", 0}},
           {{"id", "later"}, {"prompt", "b"}, {"max_tokens", 1}}});
    };
    WriteFile(InFolder("i.jsonl"), requests(90'000));
    const std::vector<std::string> arguments = {"batch", InFolder("i.jsonl"), "--model", LongModel(), "--output",
                                                output,  "--concurrency",     "1"};
    Conversation run(ProgramPath(), arguments);
    AwaitBytes(output);
    run.Signal(number);
    EXPECT_EQ(run.End(), 130);
    const auto first = ByIdAndIndex(ReadFile(output));
    EXPECT_EQ(first.size(), 1U);
    EXPECT_TRUE(first.contains({"\"short\"", 0}));
    WriteFile(InFolder("i.jsonl"), requests(3));
    const Outcome again = Runahead(arguments);
    EXPECT_EQ(again.exit_code, 0) << again.err;
    const auto all = ByIdAndIndex(ReadFile(output));
    EXPECT_EQ(all.size(), 3U);
    EXPECT_EQ(all.at({"\"long\"", 0}).at("ids").size(), 3U);
  }
}

TEST_F(BatchRunTest, AReaderThatLeavesEndsTheRun) {
  std::vector<Json> requests = MixedRequests(10);
  WriteFile(InFolder("r.jsonl"), Lines(requests));
  RunOptions options;
  options.close_stdout = true;
  const Outcome outcome = Runahead({"batch", InFolder("r.jsonl"), "--model", Model()}, options);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.err, "");
}

}  // namespace
}  // namespace runahead
