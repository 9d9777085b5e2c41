// `runahead generate`: what it prints and writes.
#include <numeric>

#include "tests/cli/fixture.h"
#include "tests/report/well_formed.h"

namespace runahead {
namespace {

using GenerateTest = CliTest;

TEST_F(GenerateTest, JsonHasWhatTheContractPromises) {
  const Json json = GenerateJson({"--prompt-ids", "1,2,3,4,5,6,7", "-n", "5", "--ignore-eos", "--devices", "cpu:2"});
  EXPECT_EQ(json.at("ids").size(), 5U);
  EXPECT_TRUE(json.at("text").is_string());
  EXPECT_GT(json.at("ttft_ms").get<double>(), 0);
  EXPECT_GT(json.at("tpot_ms").get<double>(), 0);
  EXPECT_EQ(json.at("ranks"), 2);
  EXPECT_EQ(json.at("strategy"), "runahead");
  EXPECT_EQ(json.at("prompt_tokens"), 7);
  EXPECT_EQ(json.at("finish"), "length");
  const auto chunks = json.at("partition").get<std::vector<int>>();
  EXPECT_EQ(chunks.size(), 2U);
  EXPECT_EQ(std::accumulate(chunks.begin(), chunks.end(), 0), 7);
  EXPECT_FALSE(json.contains("logits"));
}

TEST_F(GenerateTest, EveryWayOverRanksGivesOneRanksIds) {
  const std::vector<std::string> prompt = {"--prompt", "The quick brown fox", "-n",      "8", "--dtype",
                                           "f32",      "--ignore-eos",        "--logits"};
  const Json single = GenerateJson(prompt);
  const auto vocab = LoadJson(Model() + "/config.json").at("vocab_size").get<size_t>();
  EXPECT_EQ(single.at("logits").size(), vocab);
  for (const std::vector<std::string>& way : std::vector<std::vector<std::string>>{
           {"--devices", "cpu:3", "--topology", "direct"},
           {"--devices", "cpu:3", "--strategy", "tsp"},
           {"--devices", "cpu:2", "--strategy", "tsp-causal"},
           {"--devices", "cpu:4", "--partition", "even"},
           {"--devices", "cpu:3", "--partition", "5,1,1", "--threads-per-rank", "1"},
           {"--devices", "cpu:3", "--strategy", "single"}}) {
    std::vector<std::string> arguments = prompt;
    arguments.insert(arguments.end(), way.begin(), way.end());
    const Json several = GenerateJson(arguments);
    EXPECT_EQ(several.at("ids"), single.at("ids")) << Json(way);
    EXPECT_EQ(several.at("ranks"), way.back() == "single" ? 1 : way[1].back() - '0');
  }
}

TEST_F(GenerateTest, FewerTokensThanRanksUseFewerRanks) {
  EXPECT_EQ(GenerateJson({"--prompt-ids", " 1, 2", "-n", "1", "--devices", "cpu:5"}).at("ranks"), 2);
}

TEST_F(GenerateTest, PrintsTheTextAsItComes) {
  const std::vector<std::string> prompt = {"--prompt", "Hello", "-n", "12", "--temperature", "0.7", "--seed", "3"};
  std::vector<std::string> arguments = {"generate", "--model", Model()};
  arguments.insert(arguments.end(), prompt.begin(), prompt.end());
  const Outcome outcome = Runahead(arguments);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.err, "") << "no progress when stderr is no terminal";
  EXPECT_EQ(outcome.out, GenerateJson(prompt).at("text").get<std::string>() + "\n");
}

TEST_F(GenerateTest, PromptFileAndStdinAreThePromptByteForByte) {
  WriteFile(InFolder("prompt.txt"), "two\nlines \xC3\xA9\n");
  const Json expected = GenerateJson({"--prompt", "two\nlines \xC3\xA9\n", "-n", "3"});
  EXPECT_EQ(GenerateJson({"--prompt-file", InFolder("prompt.txt"), "-n", "3"}).at("ids"), expected.at("ids"));
  const Outcome piped = Runahead({"generate", "--model", Model(), "--prompt-file", "-", "-n", "3", "--json"},
                                 {"two\nlines \xC3\xA9\n", false, ""});
  EXPECT_EQ(piped.exit_code, 0) << piped.err;
  EXPECT_EQ(Json::parse(piped.out).at("ids"), expected.at("ids"));
}

TEST_F(GenerateTest, EndsAtTheContext) {
  const Json json = GenerateJson({"--prompt", std::string(kContext - 10, 'x'), "-n", "1000000", "--ignore-eos"});
  EXPECT_EQ(json.at("finish"), "length");
  const auto tokens = json.at("prompt_tokens").get<int64_t>() + static_cast<int64_t>(json.at("ids").size());
  EXPECT_GE(tokens, kContext);
  EXPECT_LE(tokens, kContext + 1) << "the last token needs no place in the cache";
}

TEST_F(GenerateTest, EndsAtAStopString) {
  const Json all = GenerateJson({"--prompt-ids", "65", "-n", "24", "--temperature", "1", "--seed", "5"});
  const auto ids = all.at("ids").get<std::vector<int>>();
  ASSERT_GE(ids.size(), 8U);
  const auto ascii = std::find_if(ids.begin() + 4, ids.end(), [](int id) { return id > ' ' && id < 127; });
  ASSERT_NE(ascii, ids.end()) << "another seed is needed";
  const std::string stop(1, static_cast<char>(*ascii));
  const Json json = GenerateJson({"--prompt-ids", "65", "-n", "24", "--temperature", "1", "--seed", "5", "--stop",
                                  "[never, ever]", "--stop", stop});
  EXPECT_EQ(json.at("finish"), "stop");
  EXPECT_EQ(json.at("text").get<std::string>().find(stop), std::string::npos);
  EXPECT_EQ(all.at("text").get<std::string>().find(json.at("text").get<std::string>() + stop), 0U);
}

TEST_F(GenerateTest, WithoutATokenizerIdsGoInAndOut) {
  const std::string bare = CopyOfModel("bare");
  for (const char* file : {"/tokenizer.json", "/tokenizer_config.json"}) std::filesystem::remove(bare + file);
  const Outcome outcome = Runahead({"generate", "--model", bare, "--prompt-ids", "1,2", "-n", "2", "--ignore-eos"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find(','), std::string::npos);
  const Outcome json = Runahead({"generate", "--model", bare, "--prompt-ids", "1,2", "-n", "2", "--json"});
  EXPECT_EQ(Json::parse(json.out).at("text"), "");
  const Outcome text = Runahead({"generate", "--model", bare, "--prompt", "x"});
  EXPECT_EQ(text.exit_code, 2);
  EXPECT_NE(text.err.find("no tokenizer"), std::string::npos);
}

TEST_F(GenerateTest, WritesTraceAndTimeline) {
  GenerateJson({"--prompt", "The quick brown fox", "-n", "1", "--devices", "cpu:2", "--trace", InFolder("t.json"),
                "--timeline", InFolder("t.svg")});
  EXPECT_GT(Json::parse(ReadFile(InFolder("t.json"))).at("traceEvents").size(), 4U);
  const std::string svg = ReadFile(InFolder("t.svg"));
  EXPECT_EQ(report::WhatIsWrongWith(svg), "");
  EXPECT_GT(report::Count(svg, "send"), 1);
}

TEST_F(GenerateTest, EndsQuietlyWhenNobodyReads) {
  for (const bool json : {false, true}) {
    std::vector<std::string> arguments = {"generate", "--model", Model(), "--prompt", "Hello", "-n", "40"};
    if (json) arguments.emplace_back("--json");
    const Outcome outcome = Runahead(arguments, {"", true, ""});
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.err, "");
  }
}

TEST_F(GenerateTest, AFullDiskIsAFailure) {
  const Outcome outcome =
      Runahead({"generate", "--model", Model(), "--prompt", "Hello", "-n", "4", "--json"}, {"", false, "/dev/full"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(report::Count(outcome.err, "\n"), 1) << outcome.err;
}

}  // namespace
}  // namespace runahead
