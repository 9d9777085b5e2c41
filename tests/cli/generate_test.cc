// `runahead generate`: what it prints and writes.
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/descriptor.h"
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

/// Counts how often a file is opened.
class OpenCounter {
 public:
  explicit OpenCounter(const std::string& path) {
    // Each opening is followed by its closing: of equal events in a row only one is told.
    if (::inotify_add_watch(watch_.get(), path.c_str(), IN_OPEN | IN_CLOSE) < 0) ADD_FAILURE() << path;
  }

  [[nodiscard]] int Opened() const {
    int opened = 0;
    alignas(inotify_event) std::array<char, 4096> block;
    for (ssize_t bytes = 0; (bytes = ::read(watch_.get(), block.data(), block.size())) > 0;) {
      for (ssize_t at = 0; at < bytes;) {
        inotify_event event{};
        std::memcpy(&event, block.data() + at, sizeof(event));
        opened += (event.mask & IN_OPEN) != 0 ? 1 : 0;
        at += static_cast<ssize_t>(sizeof(event) + event.len);
      }
    }
    return opened;
  }

 private:
  Descriptor watch_{::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
};

TEST_F(GenerateTest, ReadsTheConfigurationOnce) {
  for (const std::string name : {"config.json", "generation_config.json", "tokenizer.json"}) {
    const OpenCounter counter(Model() + "/" + name);
    (void)GenerateJson({"--prompt", "a", "-n", "1", "--devices", "cpu:2"});
    EXPECT_EQ(counter.Opened(), 1) << name;
  }
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"inspect", Model()},
           {"bench", "--model", Model(), "--devices", "cpu:2", "--contexts", "16", "--repeats", "1"},
           {"plan", "--model", Model(), "--contexts", "16"}}) {
    const OpenCounter counter(Model() + "/config.json");
    EXPECT_EQ(Runahead(command).exit_code, 0);
    EXPECT_EQ(counter.Opened(), 1) << command.front();
  }
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
  const auto flags = [](int seed) {
    return std::vector<std::string>{"--prompt-ids",  "65", "-n",     "24",
                                    "--temperature", "1",  "--seed", std::to_string(seed)};
  };
  for (int seed = 0; seed < 30; ++seed) {
    const Json all = GenerateJson(flags(seed));
    const auto ids = all.at("ids").get<std::vector<int>>();
    const auto from = ids.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(4, ids.size()));
    const auto ascii = std::find_if(from, ids.end(), [](int id) { return id > ' ' && id < 127; });
    if (ascii == ids.end()) continue;
    const std::string stop(1, static_cast<char>(*ascii));
    std::vector<std::string> stopped = flags(seed);
    stopped.insert(stopped.end(), {"--stop", "[never, ever]", "--stop", stop});
    const Json json = GenerateJson(stopped);
    EXPECT_EQ(json.at("finish"), "stop");
    EXPECT_EQ(json.at("text").get<std::string>().find(stop), std::string::npos);
    EXPECT_EQ(all.at("text").get<std::string>().find(json.at("text").get<std::string>() + stop), 0U);
    return;
  }
  FAIL() << "no seed draws a character";
}

// Special tokens are no part of the text, but stops are found among them.
TEST_F(GenerateTest, EndsAtASpecialTokenByTextAndById) {
  const std::string model = CopyOfModel("special");
  Json tokenizer = LoadJson(model + "/tokenizer.json");
  for (const auto& [content, id] : tokenizer.at("model").at("vocab").items()) {
    if (!content.starts_with("<|")) continue;
    tokenizer["added_tokens"].push_back({{"id", id},
                                         {"content", content},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", false},
                                         {"special", true}});
  }
  WriteFile(model + "/tokenizer.json", tokenizer.dump());
  int seed = 0;
  const auto generate = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {
        "generate",           "--model",       model, "--json",      "--prompt-ids", "65", "-n", "40", "--seed",
        std::to_string(seed), "--temperature", "1",   "--ignore-eos"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return Json::parse(outcome.out);
  };
  const auto spelt = [](int id) { return "<|" + std::to_string(id) + "|>"; };
  // The first seed that draws two special tokens in a row, the second of which did not come before.
  std::vector<int> all;
  size_t at = 0;
  const auto found = [&] {
    for (at = 2; at < all.size(); ++at) {
      const auto here = all.begin() + static_cast<std::ptrdiff_t>(at);
      if (all[at] >= 258 && all[at - 1] >= 258 && std::find(all.begin(), here, all[at]) == here) return true;
    }
    return false;
  };
  for (; seed < 30 && !found(); ++seed) all = generate({}).at("ids").get<std::vector<int>>();
  --seed;
  ASSERT_TRUE(found()) << "no seed draws two special tokens";
  EXPECT_EQ(generate({}).at("text").get<std::string>().find("<|"), std::string::npos);
  const std::vector<int> before(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(at));
  for (const std::vector<std::string>& stop :
       std::vector<std::vector<std::string>>{{"--stop", spelt(all[at])},
                                             {"--stop-id", std::to_string(all[at])},
                                             {"--stop-id", "0," + std::to_string(all[at])},
                                             {"--stop-id", "0", "--stop-id", std::to_string(all[at])}}) {
    const Json json = generate(stop);
    EXPECT_EQ(json.at("finish"), "stop") << Json(stop);
    EXPECT_EQ(json.at("ids").get<std::vector<int>>(), before) << Json(stop);
  }
  const Json two = generate({"--stop", spelt(all[at - 1]) + spelt(all[at])});
  EXPECT_EQ(two.at("finish"), "stop");
  EXPECT_EQ(two.at("ids").size(), at + 1) << "a stop of several tokens is found behind them";
  const Outcome beyond = Runahead({"generate", "--model", model, "--prompt-ids", "65", "--stop-id", "512"});
  EXPECT_EQ(beyond.exit_code, 2);
  EXPECT_EQ(beyond.err, "runahead: --stop-id: token id 512 is outside the vocabulary of 512\n");
}

TEST_F(GenerateTest, AnEmptyPromptIsWhatTheTokenizerMakesOfIt) {
  EXPECT_EQ(GenerateJson({"--prompt", "", "-n", "3", "--ignore-eos"}).at("prompt_tokens"), 1);
  WriteFile(InFolder("empty.txt"), "");
  EXPECT_EQ(GenerateJson({"--prompt-file", InFolder("empty.txt"), "-n", "3"}).at("prompt_tokens"), 1);
  const std::string model = CopyOfModel("beginless");
  Json tokenizer = LoadJson(model + "/tokenizer.json");
  tokenizer["post_processor"] = nullptr;
  WriteFile(model + "/tokenizer.json", tokenizer.dump());
  const Outcome outcome = Runahead({"generate", "--model", model, "--prompt", "", "-n", "3"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.err, "runahead: --prompt: the prompt is empty\n");
}

TEST_F(GenerateTest, WarnsOfAPromptThatBeginsTwice) {
  const auto says = [](const std::string& prompt) {
    const Outcome outcome = Runahead({"generate", "--model", Model(), "--prompt", prompt, "-n", "1"});
    EXPECT_EQ(outcome.exit_code, 0);
    return outcome.err;
  };
  EXPECT_EQ(says("Hello"), "");
  EXPECT_EQ(says("Hello<s>"), "");
  EXPECT_TRUE(says("<s>Hello").starts_with("runahead: warning: the prompt begins with two \"<s>\" (id 256)"));
}

TEST_F(GenerateTest, AFactorOfTheRopeStretchesTheContext) {
  const std::string model = CopyOfModel("stretched");
  Json config = LoadJson(model + "/config.json");
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  WriteFile(model + "/config.json", config.dump());
  const auto generate = [&](int64_t tokens) {
    std::string ids = "1";
    for (int64_t i = 1; i < tokens; ++i) ids += ",1";
    return Runahead({"generate", "--model", model, "--prompt-ids", ids, "-n", "2", "--json"});
  };
  EXPECT_EQ(generate(4 * kContext).exit_code, 0);
  const Outcome beyond = generate(4 * kContext + 1);
  EXPECT_EQ(beyond.exit_code, 2);
  EXPECT_NE(beyond.err.find("more than the model's context of 384"), std::string::npos) << beyond.err;
}

TEST_F(GenerateTest, TheContextMayBeAnotherThanTheModels) {
  const auto generate = [&](const std::string& model, int64_t tokens, const std::string& context) {
    std::string ids = "1";
    for (int64_t i = 1; i < tokens; ++i) ids += ",1";
    return Runahead(
        {"generate", "--model", model, "--prompt-ids", ids, "-n", "2", "--ignore-eos", "--context", context});
  };
  const Outcome longer = generate(Model(), kContext + 5, "200");
  EXPECT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_EQ(longer.out.find(','), longer.out.rfind(','));  // two ids
  EXPECT_NE(longer.err.find("warning: --context: 200 tokens are more than the 96"), std::string::npos) << longer.err;
  const Outcome shorter = generate(Model(), 21, "20");
  EXPECT_EQ(shorter.exit_code, 2);
  EXPECT_NE(shorter.err.find("more than the model's context of 20"), std::string::npos) << shorter.err;
  EXPECT_EQ(shorter.err.find("warning"), std::string::npos) << shorter.err;
  EXPECT_EQ(generate(Model(), 5, "0").exit_code, 2);
}

TEST_F(GenerateTest, IdsNeedNoTokenizer) {
  const std::string model = CopyOfModel("unigram");
  Json tokenizer = LoadJson(model + "/tokenizer.json");
  tokenizer["model"] = {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", Json::array({Json::array({"a", 0.0})})}};
  WriteFile(model + "/tokenizer.json", tokenizer.dump());
  const Outcome ids = Runahead({"generate", "--model", model, "--prompt-ids", "1,2", "-n", "4", "--ignore-eos"});
  EXPECT_EQ(ids.exit_code, 0) << ids.err;
  const Json expected = GenerateJson({"--prompt-ids", "1,2", "-n", "4", "--ignore-eos"}).at("ids");
  EXPECT_EQ(Json::parse("[" + ids.out + "]"), expected);
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--prompt", "a"}, {"--prompt-ids", "1", "--stop", "a"}}) {
    std::vector<std::string> arguments = {"generate", "--model", model, "-n", "1"};
    arguments.insert(arguments.end(), words.begin(), words.end());
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_NE(outcome.err.find("Unigram"), std::string::npos) << outcome.err;
  }
}

TEST_F(GenerateTest, PenaltiesAndMinPAreOptions) {
  const std::vector<std::string> prompt = {"--prompt-ids", "65,66", "-n", "20", "--ignore-eos"};
  std::vector<std::string> penalized = prompt;
  penalized.insert(penalized.end(), {"--repetition-penalty", "1e6"});
  auto ids = GenerateJson(penalized).at("ids").get<std::vector<int>>();
  ids.insert(ids.end(), {65, 66});
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end()) << "no token comes twice";
  std::vector<std::string> likeliest = prompt;
  likeliest.insert(likeliest.end(), {"--temperature", "1", "--min-p", "1"});
  EXPECT_EQ(GenerateJson(likeliest).at("ids"), GenerateJson(prompt).at("ids"));
  for (const std::vector<std::string>& bad : std::vector<std::vector<std::string>>{{"--min-p", "1.5"},
                                                                                   {"--min-p", "nan"},
                                                                                   {"--repetition-penalty", "0"},
                                                                                   {"--presence-penalty", "2.1"},
                                                                                   {"--frequency-penalty", "x"},
                                                                                   {"--stop-id", "-1"},
                                                                                   {"--stop-id", ""}}) {
    const Outcome outcome = Runahead({"generate", "--model", Model(), "--prompt", "a", bad[0], bad[1]});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_TRUE(outcome.err.starts_with("runahead: " + bad[0])) << outcome.err;
  }
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
