// `runahead batch`: what it reads and refuses before it loads a model's weights.
#include <fmt/format.h>

#include "tests/cli/fixture.h"
#include "tests/report/well_formed.h"

namespace runahead {
namespace {

class BatchInputTest : public CliTest {
 protected:
  static Outcome Batch(const std::string& file, const std::vector<std::string>& more = {},
                       const RunOptions& options = {}) {
    std::vector<std::string> arguments = {"batch", file, "--model", Model()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Runahead(arguments, options);
  }

  /// Exit code 2, nothing on stdout, and `lines` lines on stderr that hold `expected` together.
  static void ExpectRefused(const Outcome& outcome, const std::vector<std::string>& expected, int lines = 1) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err.find("runahead: "), 0U) << outcome.err;
    EXPECT_EQ(report::Count(outcome.err, "\n"), lines) << outcome.err;
    for (const std::string& part : expected) {
      EXPECT_NE(outcome.err.find(part), std::string::npos) << "'" << part << "' in: " << outcome.err;
    }
  }

  /// The file of requests, once with `content`.
  static std::string Requests(const std::string& content) {
    WriteFile(InFolder("r.jsonl"), content);
    return InFolder("r.jsonl");
  }

  /// A file of answers, once with `content`.
  static std::string Answers(const std::string& content) {
    WriteFile(InFolder("answers"), content);
    return InFolder("answers");
  }
};

TEST_F(BatchInputTest, NamesLineFieldAndValue) {
  const auto refused = [](const std::string& fields, const std::vector<std::string>& parts) {
    const std::string file = Requests(R"({"prompt": "a"})"
                                      "\n" +
                                      fields + "\n");
    std::vector<std::string> expected = parts;
    expected.push_back(file + ":2: ");
    ExpectRefused(Batch(file), expected);
  };
  const auto wrong = [&](const std::string& field, const std::string& value) {
    refused(fmt::format(R"({{"prompt": "a", "{}": {}}})", field, value), {field, value});
  };
  for (const char* value : {"0", "-1", "1.5", "\"5\"", "99999999999", "[]"}) wrong("max_tokens", value);
  for (const char* value : {"-0.5", "\"warm\"", "2000000", "{}"}) wrong("temperature", value);
  for (const char* value : {"0", "1.5", "true"}) wrong("top_p", value);
  for (const char* value : {"-1", "0.5"}) wrong("top_k", value);
  for (const char* value : {"-0.5", "2"}) wrong("min_p", value);
  for (const char* value : {"-1", "9223372036854775808"}) wrong("seed", value);
  for (const char* value : {"\"\"", "5", "{}"}) wrong("stop", value);
  for (const char* value : {"5", "\"a\""}) wrong("stop_token_ids", value);
  for (const char* value : {"1", "\"yes\""}) wrong("ignore_eos", value);
  for (const char* value : {"-2.5", "3"}) wrong("presence_penalty", value);
  for (const char* value : {"-2.5", "3"}) wrong("frequency_penalty", value);
  for (const char* value : {"0", "-1"}) wrong("repetition_penalty", value);
  for (const char* value : {"5", "[1]"}) wrong("logit_bias", value);
  for (const char* value : {"-1", "21", "true"}) wrong("logprobs", value);
  for (const char* value : {"0", "129"}) wrong("n", value);
  for (const char* value : {"0.5", "99999999999"}) wrong("priority", value);
  for (const char* value : {"0", "-5"}) wrong("deadline_ms", value);
  for (const char* value : {"[]", "{}", "true"}) wrong("id", value);
  refused(R"({"prompt": "a", "stop": ["b", ""]})", {"stop[1]", "\"\""});
  refused(R"({"prompt": "a", "stop_token_ids": [1, 512]})", {"stop_token_ids[1]", "511", "512"});
  refused(R"({"prompt": "a", "logit_bias": {"x": 1}})", {"logit_bias", "\"x\""});
  refused(R"({"prompt": "a", "logit_bias": {"512": 1}})", {"logit_bias", "511", "\"512\""});
  refused(R"({"prompt": "a", "logit_bias": {"5": 101}})", {"logit_bias[5]", "100", "101"});
  refused(R"({"prompt": "a", "logit_bias": {"5": "x"}})", {"logit_bias[5]", "\"x\""});
  refused(R"({"max_tokens": 5})", {"prompt is missing"});
  refused(R"({"prompt": null})", {"prompt"});
  refused(R"({"prompt": 5})", {"prompt", "5"});
  refused(R"({"prompt": []})", {"prompt", "[]"});
  refused(R"({"prompt": ["a", "b"]})", {"prompt", "one prompt"});
  refused(R"({"prompt": [[1, 2]]})", {"prompt", "one prompt"});
  refused(R"({"prompt": [1, 2, 512]})", {"prompt[2]", "511", "512"});
  refused(R"({"prompt": [1, -1]})", {"prompt[1]", "-1"});
  refused(R"({"prompt": [1, 2.5]})", {"prompt[1]", "2.5"});
  refused(fmt::format(R"({{"prompt": "{}"}})", std::string(kContext, 'x')), {"prompt", "context of 96", "97 tokens"});
  refused("[1]", {"expected a JSON object"});
  refused("{\"prompt\": \"a\"", {"not valid JSON"});
  refused("{\"prompt\": \"a\xFF\"}", {"not valid JSON"});
  refused(R"({"prompt": "a", "prompt": "b"})", {"\"prompt\" appears twice"});
  refused(std::string(100'000, '['), {"nested deeper"});
}

TEST_F(BatchInputTest, ShowsTheFirstWrongLinesAndCountsTheOthers) {
  std::string lines;
  for (int i = 1; i <= 30; ++i) lines += fmt::format("{{\"prompt\": \"a\", \"top_k\": {}}}\n", i % 2 == 0 ? i : -i);
  const std::string file = Requests(lines);
  ExpectRefused(Batch(file), {file + ":1: top_k", "-1\n", file + ":19: top_k", file + ": 5 more lines are wrong"},
                11);
}

TEST_F(BatchInputTest, IdsAreOnce) {
  const std::string file = Requests(
      "{\"prompt\": \"a\", \"id\": \"x\"}\n{\"prompt\": \"a\"}\n"
      "{\"prompt\": \"b\", \"id\": \"x\"}\n{\"prompt\": \"b\", \"id\": 2}\n");
  ExpectRefused(Batch(file),
                {file + ":3: id: \"x\" is also the id of line 1", file + ":4: id: 2 is also the id of line 2"}, 2);
}

TEST_F(BatchInputTest, FilesThatAreNone) {
  ExpectRefused(Batch(InFolder("missing")), {InFolder("missing"), "cannot open"});
  ExpectRefused(Batch(Model()), {Model(), "folder"});
  ExpectRefused(Batch(Requests("")), {"r.jsonl", "no request"});
  ExpectRefused(Batch("-", {}, {.input = "\r\n \n", .stdout_path = {}}), {"stdin", "no request"});
  ExpectRefused(Runahead({"batch", "--model", Model()}), {"file"});
}

TEST_F(BatchInputTest, TextNeedsATokenizer) {
  const std::string model = CopyOfModel("wordless");
  std::filesystem::remove(model + "/tokenizer.json");
  const std::string file = Requests("{\"prompt\": \"a\"}\n{\"prompt\": [1], \"stop\": \"a\"}\n{\"prompt\": [1]}\n");
  ExpectRefused(Runahead({"batch", file, "--model", model}),
                {file + ":1: prompt: " + model, file + ":2: stop: " + model, "no tokenizer"}, 2);
}

TEST_F(BatchInputTest, FlagsOutOfRange) {
  const std::string file = Requests("{\"prompt\": \"a\"}\n");
  for (const auto& [flag, value] :
       {std::pair{"--max-pause", "0"}, std::pair{"--max-pause", "soon"}, std::pair{"--concurrency", "0"}}) {
    ExpectRefused(Batch(file, {flag, value}), {flag, std::string("'") + value + "'"});
  }
  for (const std::string value : {"8", "0GB", "-1GB", "8gb", "GB", "1e30TB", "nanGB", ""}) {
    ExpectRefused(Batch(file, {"--kv-memory", value}), {"--kv-memory", "'" + value + "'", "8GB"});
  }
  ExpectRefused(Batch(file, {"--kv-memory", "900TB"}), {"kv memory of rank 0", "no room"});
  ExpectRefused(Batch(file, {"--kv-memory", "1kB"}), {"kv memory", "1000 bytes", "128 tokens"});
}

TEST_F(BatchInputTest, NothingIsWrittenForWrongInput) {
  const std::string file = Requests("{\"prompt\": \"a\"}\n{}\n");
  ExpectRefused(Batch(file, {"--output", InFolder("new")}), {":2: prompt"});
  EXPECT_FALSE(std::filesystem::exists(InFolder("new")));
}

TEST_F(BatchInputTest, WarnsOnceOfEachFieldThatDoesNothing) {
  const std::string file = Requests(
      "{\"prompt\": [1], \"id\": \"a\", \"suffix\": 1, \"user\": \"me\", \"stream\": true}\n"
      "{\"prompt\": [1], \"id\": \"b\", \"suffix\": 2, \"model\": \"m\", \"best_of\": 3}\n");
  const std::string answers = Answers("{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
  const Outcome outcome = Batch(file, {"--output", answers});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.err, fmt::format("runahead: warning: {0}: the field \"suffix\" is not known and does nothing\n"
                                     "runahead: warning: {0}: the field \"best_of\" is not known and does nothing\n",
                                     file));
}

TEST_F(BatchInputTest, WhatIsAnsweredIsNotAnsweredAgain) {
  const std::string file = Requests("{\"prompt\": [1, 2], \"id\": \"a\"}\r\n{\"prompt\": \"b\", \"n\": 2}\r\n\r\n");
  const std::string all =
      "{\"id\":2,\"index\":1,\"prompt_tokens\":2}\n{\"id\":\"a\",\"prompt_tokens\":2}\n"
      "{\"id\":2,\"index\":0,\"error\":\"lost\"}\n";
  const std::string answers = Answers(all);
  const Outcome outcome = Batch(file, {"--output", answers});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out + outcome.err, "");
  EXPECT_EQ(ReadFile(answers), all);
}

TEST_F(BatchInputTest, FilesOfOtherAnswersAreLeftAlone) {
  const std::string file = Requests("{\"prompt\": [1, 2], \"id\": \"a\"}\n{\"prompt\": \"b\", \"n\": 2}\n");
  const auto refused = [&](const std::string& content, const std::vector<std::string>& parts) {
    const std::string answers = Answers(content);
    std::vector<std::string> expected = parts;
    expected.push_back(answers);
    ExpectRefused(Batch(file, {"--output", answers}), expected);
    EXPECT_EQ(ReadFile(answers), content);
  };
  refused("{\"id\":\"a\"}\n{\"id\":\"c\"}\n", {":2: id", "\"c\"", file});
  refused("{\"id\":\"2\"}\n", {":1: id", "\"2\""});
  refused("{\"id\":\"a\",\"index\":1}\n", {":1: index", "1"});
  refused("{\"id\":2,\"index\":2}\n", {":1: index", "2"});
  refused("{\"id\":\"a\",\"prompt_tokens\":3}\n", {":1: prompt_tokens", "expected 2", "3"});
  refused("{\"ids\":[]}\n", {":1: id is missing"});
  refused("a note of mine\n", {":1: not valid JSON"});
  refused("\n", {":1: not valid JSON"});
  refused("a note of mine without an end", {"no answer"});
  refused("{\"id\":\"c\"}\n{\"id\":\"a\",\"ids", {":1: id"});
  ExpectRefused(Batch(file, {"--output", file}), {"--output", file, "input"});
  ExpectRefused(Batch(file, {"--output", Model() + "/config.json"}), {"--output", "config.json"});
  ExpectRefused(Batch(file, {"--output", "/dev/null"}), {"/dev/null", "regular file"});
}

}  // namespace
}  // namespace runahead
