// bench, inspect, make-model and demo: small runs of the real thing.
#include "tests/cli/fixture.h"
#include "tests/report/well_formed.h"

namespace runahead {
namespace {

using MeasureTest = CliTest;

TEST_F(MeasureTest, BenchChecksTimesAndWritesEverything) {
  const Outcome outcome = Runahead({"bench",
                                    "--model",
                                    Model(),
                                    "--devices",
                                    "cpu:3",
                                    "--threads-per-rank",
                                    "1",
                                    "--contexts",
                                    "24,48",
                                    "--strategies",
                                    "single,runahead,tsp",
                                    "--topologies",
                                    "chain,direct",
                                    "--partitions",
                                    "even,auto",
                                    "--partitions",
                                    "5,4,3",
                                    "--ranks",
                                    "2,3",
                                    "--repeats",
                                    "2",
                                    "--dtype",
                                    "f32",
                                    "--json",
                                    InFolder("bench.json"),
                                    "--svg",
                                    InFolder("bench.svg")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("matmul ceiling of 3 ranks"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("speed-up"), std::string::npos) << outcome.out;

  const Json json = Json::parse(ReadFile(InFolder("bench.json")));
  // Per context: single, two ranks (2 topologies x 2 partitions and tsp), three ranks (2 x 3 and tsp).
  EXPECT_EQ(json.at("results").size(), 2U * (1 + 5 + 7));
  for (const Json& result : json.at("results")) {
    EXPECT_EQ(result.at("ttft_ms").size(), 2U);
    EXPECT_TRUE(result.at("same_first_token").get<bool>());
    EXPECT_LE(result.at("logit_difference").get<double>(), json.at("allowed_logit_difference").get<double>());
    EXPECT_EQ(result.at("cuts").size(), result.at("ranks").get<size_t>() + 1);
  }
  EXPECT_EQ(json.at("matmul_ceilings").size(), 3U);
  EXPECT_FALSE(json.at("machine").at("cpu").get<std::string>().empty());
  EXPECT_EQ(report::WhatIsWrongWith(ReadFile(InFolder("bench.svg"))), "");
}

TEST_F(MeasureTest, InspectCountsWhatIsThere) {
  const Outcome outcome = Runahead({"inspect", Model(), "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json json = Json::parse(outcome.out);
  const Json config = LoadJson(Model() + "/config.json");
  EXPECT_EQ(json.at("family"), "llama");
  EXPECT_EQ(json.at("context"), kContext);
  EXPECT_EQ(json.at("layers"), config.at("num_hidden_layers"));
  EXPECT_EQ(json.at("dtypes"), Json::array({"BF16"}));
  EXPECT_EQ(json.at("weight_bytes").get<int64_t>(), 2 * json.at("parameters").get<int64_t>());
  EXPECT_EQ(json.at("full_context").size(), 4U);
  const Outcome text = Runahead({"inspect", Model()});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_NE(text.out.find("LlamaForCausalLM"), std::string::npos);
}

TEST_F(MeasureTest, InspectSaysWhatIsNotSupported) {
  std::filesystem::copy(Model(), InFolder("odd"));
  Json config = LoadJson(Model() + "/config.json");
  config["num_experts"] = 8;
  WriteFile(InFolder("odd") + "/config.json", config.dump());
  const Outcome text = Runahead({"inspect", InFolder("odd")});
  EXPECT_EQ(text.exit_code, 2);
  EXPECT_NE(text.out.find("parameters"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("supported     no"), std::string::npos) << text.out;
  EXPECT_NE(text.err.find("num_experts"), std::string::npos) << text.err;
  const Json json = Json::parse(Runahead({"inspect", InFolder("odd"), "--json"}).out);
  EXPECT_EQ(json.at("supported"), false);
  EXPECT_NE(json.at("refusal").get<std::string>().find("num_experts"), std::string::npos);

  config.erase("num_experts");
  WriteFile(InFolder("odd") + "/config.json", config.dump());
  WriteFile(InFolder("odd") + "/tokenizer.json", "{}");
  const Outcome without = Runahead({"inspect", InFolder("odd")});
  EXPECT_EQ(without.exit_code, 0) << without.err;
  EXPECT_NE(without.out.find("tokenizer     not usable"), std::string::npos) << without.out;
}

TEST_F(MeasureTest, MakeModelRepeatsItselfBySeed) {
  const auto weights = [](const std::string& name, const std::string& seed) {
    const Outcome outcome = Runahead({"make-model", "tiny-llama", InFolder(name), "--seed", seed});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    return ReadFile(InFolder(name) + "/model.safetensors");
  };
  const std::string first = weights("a", "7");
  EXPECT_EQ(weights("b", "7"), first);
  EXPECT_NE(weights("c", "8"), first);
}

TEST_F(MeasureTest, DemoAnswersRight) {
  if (!std::filesystem::exists(RUNAHEAD_SOURCE_DIR "/models/demo/model.safetensors")) GTEST_SKIP();
  const Outcome outcome =
      Runahead({"demo", "--tokens", "2000", "--ranks", "3", "--repeats", "1", "--timeline", InFolder("demo.svg")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(report::Count(outcome.out, ", right"), 2) << outcome.out;
  EXPECT_NE(outcome.out.find("rank 2 |"), std::string::npos) << outcome.out;
  EXPECT_EQ(report::WhatIsWrongWith(ReadFile(InFolder("demo.svg"))), "");
}

}  // namespace
}  // namespace runahead
