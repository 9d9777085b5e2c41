// Bad usage and bad input: exit code 2, nothing on stdout, one line on stderr that names the thing and the value.
#include "tests/cli/fixture.h"
#include "tests/report/well_formed.h"

namespace runahead {
namespace {

class BadInputTest : public CliTest {
 protected:
  /// The run must fail as bad input does, with a message that holds each of `expected`.
  static void ExpectRefused(const std::vector<std::string>& arguments, const std::vector<std::string>& expected) {
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << Json(arguments);
    EXPECT_EQ(outcome.out, "") << Json(arguments);
    EXPECT_EQ(outcome.err.find("runahead: "), 0U) << outcome.err;
    EXPECT_EQ(report::Count(outcome.err, "\n"), 1) << outcome.err;
    for (const std::string& part : expected) {
      EXPECT_NE(outcome.err.find(part), std::string::npos) << "'" << part << "' in: " << outcome.err;
    }
  }

  static void ExpectGenerateRefused(const std::vector<std::string>& more, const std::vector<std::string>& expected) {
    std::vector<std::string> arguments = {"generate", "--model", Model(), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    ExpectRefused(arguments, expected);
  }

  static void ExpectModelRefused(const std::string& model, const std::vector<std::string>& expected) {
    ExpectRefused({"generate", "--model", model, "--prompt-ids", "1,2", "-n", "1", "--json"}, expected);
  }
};

TEST_F(BadInputTest, Commands) {
  ExpectRefused({}, {"a command is needed", "generate"});
  ExpectRefused({"genrate"}, {"'genrate'", "generate"});
  ExpectRefused({"--nonsense"}, {"--nonsense"});
  ExpectRefused({"generate"}, {"--model"});
  ExpectRefused({"bench", "--model"}, {"--model"});
}

TEST_F(BadInputTest, HelpIsNoError) {
  for (const char* command :
       {"generate", "batch", "chat", "bench", "tune", "plan", "demo", "tokenize", "inspect", "make-model"}) {
    const Outcome outcome = Runahead({command, "--help"});
    EXPECT_EQ(outcome.exit_code, 0) << command;
    EXPECT_NE(outcome.out.find("--"), std::string::npos);
    EXPECT_EQ(outcome.err, "");
  }
  EXPECT_EQ(Runahead({"--help"}).exit_code, 0);
  EXPECT_EQ(Runahead({"--version"}).out.find("runahead "), 0U);
}

TEST_F(BadInputTest, FormatsOfWeights) {
  ExpectGenerateRefused({"--prompt-ids", "1", "--weights", "int5"},
                        {"--weights", "'int5'", "stored, int8, int4, fp8"});
  ExpectGenerateRefused({"--prompt-ids", "1", "--weights", "fp8"}, {"--weights fp8", "GPUs", "int8 or int4"});
  ExpectRefused({"bench", "--suite", "weights", "--model", Model()}, {"--text"});
  ExpectRefused({"bench", "--suite", "weights", "--model", Model(), "--text", InFolder("missing")},
                {InFolder("missing")});
  ExpectRefused({"bench", "--suite", "weights", "--model", Model(), "--weights", "int8", "--text", "-"},
                {"--weights", "'int8'"});
}

TEST_F(BadInputTest, Prompts) {
  ExpectGenerateRefused({}, {"--prompt"});
  ExpectGenerateRefused({"--prompt", "a", "--prompt-ids", "1"}, {"--prompt"});
  ExpectGenerateRefused({"--prompt", "a\xFFz"}, {"--prompt"});
  ExpectGenerateRefused({"--prompt-file", InFolder("missing")}, {InFolder("missing")});
  ExpectGenerateRefused({"--prompt-file", Model()}, {Model()});
  ExpectGenerateRefused({"--prompt-ids", ""}, {"--prompt-ids"});
  ExpectGenerateRefused({"--prompt-ids", "1,,2"}, {"--prompt-ids", "'1,,2'"});
  ExpectGenerateRefused({"--prompt-ids", "1,2,"}, {"'1,2,'"});
  ExpectGenerateRefused({"--prompt-ids", "1,two"}, {"'two'"});
  ExpectGenerateRefused({"--prompt-ids", "-1"}, {"'-1'"});
  ExpectGenerateRefused({"--prompt-ids", "2147483648"}, {"'2147483648'"});
  ExpectGenerateRefused({"--prompt-ids", "99999999999999999999999"}, {"'99999999999999999999999'"});
  ExpectGenerateRefused({"--prompt-ids", "1,2147483647"}, {"2147483647", "vocabulary"});
  ExpectGenerateRefused({"--prompt", std::string(kContext + 1, 'x')}, {std::to_string(kContext), "context"});
}

TEST_F(BadInputTest, Numbers) {
  const auto refused = [](const std::string& flag, const std::string& value) {
    ExpectGenerateRefused({"--prompt", "a", flag, value}, {flag, "'" + value + "'"});
  };
  for (const char* value : {"0", "-5", "999999999999", "1.5", "ten", ""}) refused("-n", value);
  for (const char* value : {"nan", "-1", "inf", "1e99", "warm"}) refused("--temperature", value);
  for (const char* value : {"-1", "x"}) refused("--top-k", value);
  for (const char* value : {"0", "1.01", "nan", "-0.5"}) refused("--top-p", value);
  for (const char* value : {"0", "-2", "100000"}) refused("--threads-per-rank", value);
  for (const char* value : {"0.5", "nan", "x"}) refused("--rank-slowdown", value);
  for (const char* value : {"0", "-1", "nan"}) refused("--timeout", value);
  for (const char* value : {"f8", "", "F32"}) refused("--dtype", value);
  for (const char* value : {"10", "0GB/s", "0-9=1GB/s"}) {
    ExpectGenerateRefused({"--prompt", "a", "--devices", "cpu:2", "--link-bandwidth", value},
                          {"link-bandwidth", value});
    ExpectGenerateRefused({"--prompt", "a", "--devices", "cpu:2", "--rank-bandwidth", value},
                          {"rank-bandwidth", value});
  }
  ExpectGenerateRefused({"--prompt", "a", "--link", "radio"}, {"link", "'radio'"});
  ExpectGenerateRefused({"--prompt", "a", "--wire", "int7"}, {"wire", "'int7'"});
  refused("--seed", "-1");
  ExpectGenerateRefused({"--prompt", "a", "-n"}, {"-n"});
}

TEST_F(BadInputTest, Names) {
  const auto refused = [](const std::string& flag, const std::string& value) {
    ExpectGenerateRefused({"--prompt", "abcdef", flag, value}, {flag.substr(2), "'" + value + "'"});
  };
  for (const char* value : {"cpu:0", "cpu:-1", "cpu:x", "cpu:", "cpu:9999", "gpu", "", "cuda:x", "cuda:256"}) {
    refused("--devices", value);
  }
  for (const char* value : {"runahed", ""}) refused("--strategy", value);
  refused("--topology", "ring");
  for (const char* value : {"odd", "1,0", "1,-1", "1,nan", "1,,2", ""}) refused("--partition", value);
  ExpectGenerateRefused({"--prompt", "abcdef", "--devices", "cpu:2", "--partition", "1,1,1"}, {"2 fractions", "3"});
  ExpectGenerateRefused({"--prompt", "a", "--devices", "cpu:2", "--threads-per-rank", "1,1,1"}, {"2 ranks", "3"});
  ExpectGenerateRefused({"--prompt", "a", "--devices", "cpu:2", "--rank-slowdown", "2,2,2"}, {"2 ranks", "3"});
  ExpectGenerateRefused(
      {"--prompt", "abcd", "--devices", "cpu:2", "--partition", "searched", "--tuned", InFolder("no")},
      {"tokens on 2 ranks", "tune --search"});
  ExpectGenerateRefused({"--prompt", "a", "--stop", ""}, {"stop"});
  ExpectGenerateRefused({"--prompt", "a", "--frobnicate"}, {"--frobnicate"});
  ExpectRefused({"generate", "--model", Model(), "--prompt", "a", "--logits"}, {"--logits", "--json"});
}

TEST_F(BadInputTest, OutputsAreCheckedFirst) {
  ExpectGenerateRefused({"--prompt", "a", "--trace", InFolder("no/such/t.json")}, {InFolder("no/such/t.json")});
  ExpectGenerateRefused({"--prompt", "a", "--timeline", Model()}, {Model()});
}

TEST_F(BadInputTest, ModelFolders) {
  ExpectModelRefused(InFolder("nowhere"), {InFolder("nowhere")});
  const std::string broken = CopyOfModel("broken-json");
  WriteFile(broken + "/config.json", "{\"hidden_size\": ");
  ExpectModelRefused(broken, {broken + "/config.json"});

  const std::string unknown = CopyOfModel("unknown");
  Json config = LoadJson(unknown + "/config.json");
  config["architectures"] = {"MysteryForCausalLM"};
  config["model_type"] = "mystery";
  WriteFile(unknown + "/config.json", config.dump());
  ExpectModelRefused(unknown, {"MysteryForCausalLM"});

  const std::string cut = CopyOfModel("cut");
  std::filesystem::resize_file(cut + "/model.safetensors", 5000);
  ExpectModelRefused(cut, {cut + "/model.safetensors"});

  const std::string shape = CopyOfModel("shape");
  config = LoadJson(shape + "/config.json");
  config["intermediate_size"] = config["intermediate_size"].get<int>() + 1;
  WriteFile(shape + "/config.json", config.dump());
  ExpectModelRefused(shape, {"mlp"});

  const std::string words = CopyOfModel("words");
  WriteFile(words + "/tokenizer.json", "{}");
  ExpectRefused({"generate", "--model", words, "--prompt", "a", "-n", "1"}, {words + "/tokenizer.json"});
}

TEST_F(BadInputTest, OtherCommands) {
  ExpectRefused({"inspect", InFolder("nowhere")}, {InFolder("nowhere")});
  ExpectRefused({"inspect"}, {"model"});
  ExpectRefused({"make-model", "llama-9000b", InFolder("new")}, {"llama-9000b", "tiny-llama"});
  ExpectRefused({"make-model", "tiny-llama"}, {"folder"});
  ExpectRefused({"make-model", "tiny-llama", Model()}, {Model()});
  ExpectRefused({"demo", "--model", Model(), "--tokens", "10"}, {"--tokens"});
  ExpectRefused({"demo", "--model", InFolder("nowhere")}, {InFolder("nowhere")});
  ExpectRefused({"bench", "--model", Model(), "--contexts", "16,0"}, {"--contexts", "'0'"});
  ExpectRefused({"bench", "--model", Model(), "--contexts", "100000"}, {"--contexts", "100000"});
  ExpectRefused({"bench", "--model", Model(), "--contexts", "16", "--strategies", "magic"}, {"'magic'"});
  ExpectRefused({"bench", "--model", Model(), "--contexts", "16", "--devices", "cpu:2", "--ranks", "3"},
                {"--ranks", "3"});
}

}  // namespace
}  // namespace runahead
