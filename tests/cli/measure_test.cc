// bench, inspect, make-model and demo: small runs of the real thing.
#include "base/source_dir.h"
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
                                    InFolder("bench.svg"),
                                    "--timeline",
                                    InFolder("run.svg"),
                                    "--trace",
                                    InFolder("run.json")});
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
  EXPECT_EQ(report::WhatIsWrongWith(ReadFile(InFolder("run.svg"))), "");
  EXPECT_GT(Json::parse(ReadFile(InFolder("run.json"))).at("traceEvents").size(), 6U);
}

TEST_F(MeasureTest, RequestsDecodeBehindTheirPrompts) {
  const Outcome outcome =
      Runahead({"bench", "--model", Model(), "--devices", "cpu:2", "--contexts", "40", "--repeats", "2", "--dtype",
                "f32", "--decode-tokens", "3", "--json", InFolder("bench.json")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json json = Json::parse(ReadFile(InFolder("bench.json")));
  EXPECT_GT(json.at("results").size(), 1U);
  for (const Json& result : json.at("results")) {
    EXPECT_EQ(result.at("ttft_ms").size(), 2U);
    EXPECT_EQ(result.at("token_ms").size(), 2U * 3U);
    EXPECT_GT(result.at("tpot_ms_median").get<double>(), 0);
  }
}

TEST_F(MeasureTest, TheServingSuiteComparesThreePolicies) {
  ASSERT_EQ(Runahead({"make-model", "tiny-llama", InFolder("roomy")}).exit_code, 0);
  const Outcome outcome = Runahead({"bench",
                                    "--suite",
                                    "serving",
                                    "--model",
                                    InFolder("roomy"),
                                    "--devices",
                                    "cpu:2",
                                    "--threads-per-rank",
                                    "1",
                                    "--contexts",
                                    "600",
                                    "--requests",
                                    "12",
                                    "--arrival-gap",
                                    "2",
                                    "--kv-memory",
                                    "64MiB",
                                    "--seed",
                                    "5",
                                    "--json",
                                    InFolder("serving.json"),
                                    "--plots",
                                    InFolder("plots")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json suite = Json::parse(ReadFile(InFolder("serving.json")));
  ASSERT_EQ(suite.at("policies").size(), 3U);
  for (const Json& policy : suite.at("policies")) {
    EXPECT_GE(policy.at("requests").get<int>(), 12) << policy.at("policy");
    EXPECT_GT(policy.at("ttft_ms").at("p50").get<double>(), 0) << policy.at("policy");
    EXPECT_GE(policy.at("ttft_ms").at("p99").get<double>(), policy.at("ttft_ms").at("p50").get<double>());
    EXPECT_NE(outcome.out.find(policy.at("policy").get<std::string>()), std::string::npos);
  }
  EXPECT_EQ(suite.at("policies").at(1).at("over_several_ranks"), 0);
  EXPECT_GT(suite.at("policies").at(2).at("over_several_ranks").get<int>(), 0);
  for (const char* name : {"-serving-ttft.svg", "-serving-pauses.svg"}) {
    const std::string path = InFolder("plots") + "/roomy" + name;
    EXPECT_EQ(report::WhatIsWrongWith(ReadFile(path)), "") << path;
  }
}

TEST_F(MeasureTest, TheDecodeSuiteTimesStepsOfManyAnswers) {
  ASSERT_EQ(Runahead({"make-model", "tiny-llama", InFolder("answering")}).exit_code, 0);
  const Outcome outcome = Runahead({"bench",
                                    "--suite",
                                    "decode",
                                    "--model",
                                    InFolder("answering"),
                                    "--devices",
                                    "cpu:1",
                                    "--threads-per-rank",
                                    "1",
                                    "--batch",
                                    "1,5",
                                    "--contexts",
                                    "140",
                                    "--decode-tokens",
                                    "8",
                                    "--repeats",
                                    "2",
                                    "--kv-memory",
                                    "64MiB",
                                    "--deterministic",
                                    "--json",
                                    InFolder("decode.json")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json suite = Json::parse(ReadFile(InFolder("decode.json")));
  ASSERT_EQ(suite.at("runs").size(), 2U);
  EXPECT_EQ(suite.at("deterministic"), true);
  for (const Json& run : suite.at("runs")) {
    EXPECT_EQ(run.at("step_ms").size(), 2U * 6U);
    EXPECT_EQ(run.at("same_ids"), run.at("compared_ids"));
    EXPECT_GT(run.at("compared_ids").get<int>(), 0);
    EXPECT_GT(run.at("second_turn_cached_tokens").get<int>(), 140);
    EXPECT_GT(run.at("layer").size(), 4U);
  }
  const Outcome several = Runahead({"bench", "--suite", "decode", "--model", InFolder("answering"), "--batch", "0"});
  EXPECT_NE(several.exit_code, 0);
  EXPECT_NE(several.err.find("--batch"), std::string::npos) << several.err;
}

TEST_F(MeasureTest, ThePaperSuiteComparesEveryWayAndDrawsItsPlots) {
  const std::string json_path = InFolder("suite.json");
  const Outcome outcome = Runahead({"bench",
                                    "--suite",
                                    "paper",
                                    "--model",
                                    Model(),
                                    "--devices",
                                    "cpu:2",
                                    "--threads-per-rank",
                                    "1",
                                    "--contexts",
                                    "24,48,96",
                                    "--repeats",
                                    "2",
                                    "--dtype",
                                    "f32",
                                    "--suite-links",
                                    "full,link:50MB/s",
                                    "--search-evaluations",
                                    "3",
                                    "--tuned",
                                    InFolder("tuned"),
                                    "--json",
                                    json_path,
                                    "--plots",
                                    InFolder("plots")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  EXPECT_NE(outcome.out.find("over TSP"), std::string::npos) << outcome.out;
  const Json model = Json::parse(ReadFile(json_path)).at("models").at(0);
  // Seven ways for each of two cases and three contexts: one rank, TSP twice, KVR-E, KVR-S, KVR-P and auto.
  EXPECT_EQ(model.at("results").size(), 2U * 3 * 7);
  EXPECT_EQ(model.at("searches").size(), 2U * 3);
  EXPECT_EQ(model.at("side_traffic").size(), 2U * 5);
  EXPECT_EQ(model.at("breakdown").size(), 2U * 6);
  const double row_bytes = 4.0 * 2 * 2 * 16;  // bytes of a row of a layer in f32
  for (const Json& result : model.at("results")) {
    EXPECT_EQ(result.at("ttft_ms").size(), 2U);
    EXPECT_GT(result.at("limit_ms").get<double>(), 0);
    if (result.at("links") == "full" || !result.at("way").get<std::string>().starts_with("KVR")) continue;
    // What the last rank waits for cannot come faster than the link carries it.
    const double rows = result.at("cuts").at(1).get<double>();
    EXPECT_GE(result.at("ttft_ms").at(0).get<double>(), rows * row_bytes / 50e6 * 1e3) << result.dump();
  }
  EXPECT_EQ(report::WhatIsWrongWith(ReadFile(InFolder("plots") + "/model-full-contexts.svg")), "");
  EXPECT_EQ(report::WhatIsWrongWith(ReadFile(InFolder("plots") + "/model-link-50MB-s-ranks.svg")), "");

  const Outcome again = Runahead({"bench", "--from", json_path, "--plots", InFolder("again")});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(ReadFile(InFolder("again") + "/model-full-contexts.svg"),
            ReadFile(InFolder("plots") + "/model-full-contexts.svg"));
}

TEST_F(MeasureTest, SlowLinksSlowPromptsDown) {
  const auto ttft_ms = [](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--devices", "cpu:2", "--prompt-ids", "1,2,3,4,5,6,7,8", "-n", "1"};
    arguments.insert(arguments.end(), {"--dtype", "f32", "--partition", "1,1"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return GenerateJson(arguments).at("ttft_ms").get<double>();
  };
  // Four rows of each layer, keys and values of 2 heads of 16 in f32: 1 kB at 10 kB/s.
  EXPECT_GE(ttft_ms({"--link-bandwidth", "10kB/s"}), 100);
  EXPECT_GE(ttft_ms({"--rank-bandwidth", "10kB/s"}), 100);
}

TEST_F(MeasureTest, TheWireSuiteComparesFormats) {
  const Outcome outcome =
      Runahead({"bench", "--suite", "wire", "--model", Model(), "--devices", "cpu:2", "--threads-per-rank", "1",
                "--text-tokens", "200", "--contexts", "100", "--json", InFolder("wire.json")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json suite = Json::parse(ReadFile(InFolder("wire.json")));
  EXPECT_EQ(suite.at("positions"), 2 * 25);
  const Json& formats = suite.at("formats");
  ASSERT_EQ(formats.size(), 5U);
  EXPECT_EQ(formats.at(0).at("logit_error"), 0);
  EXPECT_EQ(formats.at(0).at("wire_bound"), 0);
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_GT(formats.at(i).at("logit_error"), 0);
    EXPECT_GT(formats.at(i).at("wire_bound"), 0);
    EXPECT_LT(formats.at(i).at("bytes_sent"), formats.at(0).at("bytes_sent"));
  }
  EXPECT_EQ(formats.at(4).at("wire"), "exact in f32");  // what rounding to bf16 alone costs
  EXPECT_GT(formats.at(4).at("logit_error"), 0);
  EXPECT_EQ(formats.at(4).at("wire_bound"), 0);
}

// Logits that differ by more than rounding are no mistake then.
TEST_F(MeasureTest, BenchTakesRowsThatTravelInFewerBits) {
  const Outcome outcome = Runahead({"bench", "--model", Model(), "--devices", "cpu:2", "--contexts", "64",
                                    "--strategies", "single,runahead", "--partitions", "even", "--repeats", "1",
                                    "--dtype", "f32", "--wire", "int4", "--json", InFolder("bench.json")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json bench = Json::parse(ReadFile(InFolder("bench.json")));
  EXPECT_TRUE(bench.at("allowed_logit_difference").is_null());
  EXPECT_GT(bench.at("results").at(1).at("logit_difference"), 1e-4);
}

TEST_F(MeasureTest, RowsTravelAsAsked) {
  const Json exact = GenerateJson({"--devices", "cpu:2", "--prompt-ids", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
                                   "-n", "1", "--partition", "even"});
  EXPECT_EQ(exact.at("wire"), "exact");
  const Json int8 = GenerateJson({"--devices", "cpu:2", "--prompt-ids", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
                                  "-n", "1", "--partition", "even", "--wire", "int8"});
  EXPECT_EQ(int8.at("wire").at("0-1"), "int8");
  EXPECT_LT(int8.at("bytes_sent"), exact.at("bytes_sent"));
  EXPECT_GT(int8.at("wire_bound"), 0);
}

TEST_F(MeasureTest, TheWeightsSuiteComparesFormats) {
  WriteFile(InFolder("text"), "A text that a model with random weights knows nothing about, so that it is guessed.");
  const Outcome outcome =
      Runahead({"bench", "--suite", "weights", "--model", Model(), "--devices", "cpu", "--text", InFolder("text"),
                "--text-tokens", "40", "--contexts", "16", "--json", InFolder("weights.json")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json suite = Json::parse(ReadFile(InFolder("weights.json")));
  EXPECT_EQ(suite.at("positions"), 37) << "all but the last token of each window";
  ASSERT_EQ(suite.at("formats").size(), 3U);
  double before = -1;
  for (const Json& format : suite.at("formats")) {
    EXPECT_GT(format.at("perplexity").get<double>(), 1);
    EXPECT_GT(format.at("logit_error").get<double>(), before) << format.at("weights");
    before = format.at("logit_error").get<double>();
  }
  EXPECT_LT(before, 0.3);
  EXPECT_EQ(suite.at("formats")[0].at("logit_error").get<double>(), 0);
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
  const Json& formats = json.at("formats");
  ASSERT_EQ(formats.size(), 4U);
  EXPECT_EQ(formats[0].at("weights"), "stored");
  EXPECT_EQ(formats[2].at("weights"), "int4");
  const auto layers = [&](size_t i) { return formats[i].at("layer_bytes").get<double>(); };
  EXPECT_NEAR(layers(1) / layers(0), 0.5, 0.1);
  EXPECT_NEAR(layers(2) / layers(0), 0.29, 0.1);
  EXPECT_EQ(formats[3].at("weights"), "fp8");
  EXPECT_NEAR(layers(3) / layers(0), 0.5, 0.05);
  EXPECT_EQ(formats[3].at("head_bytes"), formats[0].at("head_bytes")) << "the head stays as it is stored beside fp8";
  EXPECT_EQ(formats[1].at("head_bytes"), formats[2].at("head_bytes")) << "the head is int8 beside int4";
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

  config["sliding_window"] = 12;
  config["quantization_config"] = {{"quant_method", "bitsandbytes"}};
  WriteFile(InFolder("odd") + "/config.json", config.dump());
  const std::string both = Runahead({"inspect", InFolder("odd")}).out;
  const Json all = Json::parse(Runahead({"inspect", InFolder("odd"), "--json"}).out).at("refusals");
  EXPECT_EQ(all.size(), 3U) << all;
  for (const char* field : {"num_experts", "sliding_window", "quantization_config"}) {
    EXPECT_NE(both.find(field), std::string::npos) << both;
  }
  config["architectures"] = {"UnheardOfForCausalLM"};
  WriteFile(InFolder("odd") + "/config.json", config.dump());
  std::filesystem::rename(InFolder("odd") + "/model.safetensors", InFolder("odd") + "/pytorch_model.bin");
  const std::string unknown = Runahead({"inspect", InFolder("odd")}).out;
  for (const char* thing : {"UnheardOfForCausalLM", "bitsandbytes", "pytorch_model.bin"}) {
    EXPECT_NE(unknown.find(thing), std::string::npos) << unknown;
  }
  std::filesystem::rename(InFolder("odd") + "/pytorch_model.bin", InFolder("odd") + "/model.safetensors");
  config["architectures"] = {"LlamaForCausalLM"};
  config.erase("sliding_window");
  config.erase("quantization_config");
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
  if (!std::filesystem::exists(std::filesystem::path(SourceDir()) / "models/demo/model.safetensors")) GTEST_SKIP();
  const Outcome outcome =
      Runahead({"demo", "--tokens", "2000", "--ranks", "3", "--repeats", "1", "--timeline", InFolder("demo.svg")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(report::Count(outcome.out, ", right"), 2) << outcome.out;
  EXPECT_NE(outcome.out.find("rank 2 |"), std::string::npos) << outcome.out;
  EXPECT_EQ(report::WhatIsWrongWith(ReadFile(InFolder("demo.svg"))), "");
}

TEST_F(MeasureTest, DemoInAFolderThatCannotBeWrittenGoesWithoutThePicture) {
  if (!std::filesystem::exists(std::filesystem::path(SourceDir()) / "models/demo/model.safetensors")) GTEST_SKIP();
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "runahead";
  const std::string demo = "cd /proc && exec '" + program + "' demo --tokens 2000 --ranks 2 --repeats 1";
  const Outcome warned = RunProgram("/bin/sh", {"-c", demo});
  EXPECT_EQ(warned.exit_code, 0) << warned.out << warned.err;
  EXPECT_NE(warned.err.find("warning: no picture is drawn: runahead-demo.svg"), std::string::npos) << warned.err;
  EXPECT_EQ(warned.out.find("picture"), std::string::npos) << warned.out;

  const Outcome refused = RunProgram("/bin/sh", {"-c", demo + " --timeline x.svg"});
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_NE(refused.err.find("x.svg"), std::string::npos) << refused.err;
}

}  // namespace
}  // namespace runahead
