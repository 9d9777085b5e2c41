#include "tests/mutation/kinds.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "base/source_dir.h"
#include "model/make_model.h"
#include "runahead/error.h"
#include "tests/cli/process.h"

namespace runahead::mutation {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLengthBytes = 8;  // a little-endian u64 opens a safetensors file

constexpr const char* kSuite = R"({
 "suite": "paper", "devices": "cpu:2", "repeats": 2, "decoded_tokens": 0,
 "machine": {"cpu": "a processor", "processors": 2},
 "models": [{
  "model": "tiny", "dtype": "f32", "device": "cpu", "ranks": [2], "contexts": [24, 48],
  "ceilings": [{"ranks": 1, "best": 1e10, "sustained": 9e9}],
  "results": [
   {"links": "full", "way": "single", "ranks": 1, "context": 24, "cuts": [0, 24], "ttft_ms": [1.5, 1.6],
    "ttft_ms_median": 1.55, "share_of_limit": 0.5, "efficiency": 1.0},
   {"links": "full", "way": "TSP", "ranks": 2, "context": 24, "cuts": [0, 12, 24], "ttft_ms": [1.0, 1.1],
    "ttft_ms_median": 1.05, "share_of_limit": 0.4, "efficiency": 0.7, "speed_up_over_tsp": 1.0},
   {"links": "full", "way": "KVR-S", "ranks": 2, "context": 48, "cuts": [0, 29, 48], "topology": "chain",
    "ttft_ms": [1.9, 2.1], "ttft_ms_median": 2.0, "share_of_limit": 0.45, "efficiency": 0.8, "speed_up_over_tsp": 1.3}],
  "searches": [], "breakdown": [],
  "side_traffic": [
   {"links": "full", "way": "TSP", "ranks": 2, "context": 24, "traffic_bytes_per_s": 1e9, "ttft_ms_median": 1.0,
    "disturbed_ttft_ms_median": 1.2, "lost_share": 0.2}]}]})";

constexpr const char* kCluster = R"(model = "tiny-llama"
dtype = "bf16"
contexts = [64, 256]
[[devices]]
name = "A100"
count = 4
tflops = 312
efficiency = 0.6
attention_efficiency = 0.4
memory_gbs = 1555
layer_overhead_us = 20
host = "a"
[[devices]]
name = "RTX 4090"
count = 2
own_hosts = true
tflops = 165
slowdown = 1.5
[links]
bandwidth_gbs = 300
latency_us = 5
setup_us = 2
sharing = "pairs"
[network]
bandwidth_gbs = 12.5
latency_us = 10
[[link]]
from = 0
to = 1
bandwidth_gbs = 100
)";

constexpr const char* kRequest =
    R"({"id": "a", "prompt": [1, 2, 3], "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, )"
    R"("seed": 1, "stop": ["a"], "stop_token_ids": [5], "ignore_eos": true, "presence_penalty": 0.5, )"
    R"("frequency_penalty": -0.5, "repetition_penalty": 1.1, "logit_bias": {"5": 1}, "logprobs": 2, "n": 2, )"
    R"("priority": 1})";

void Run(const std::string& program, const std::vector<std::string>& arguments) {
  const Outcome outcome = RunProgram(program, arguments);
  if (outcome.exit_code != 0) throw Error(fmt::format("{}: {}", arguments.front(), outcome.err));
}

/// The one file of `folder` whose name begins so.
fs::path FileNamed(const fs::path& folder, std::string_view begin) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(begin)) return entry.path();
  }
  throw Error(fmt::format("{}: nothing in it is named {}...", folder.string(), begin));
}

std::vector<std::string> GenerateFrom(const std::string& model) {
  return {"generate", "--model", "@/" + model, "--prompt-ids", "1,2,3", "-n", "2", "--threads-per-rank", "1"};
}

std::vector<std::string> TokenizeFrom(const std::string& model) {
  return {"tokenize", "--model", "@/" + model, "--file", "@/text"};
}

/// `header` as a safetensors file opens with it.
std::string WithLength(const std::string& header, uint64_t length) {
  std::string bytes;
  for (size_t i = 0; i < kLengthBytes; ++i) bytes += static_cast<char>((length >> (8 * i)) & 0xff);
  return bytes + header;
}

Mutant MutateSafetensors(const std::string& text, Mutator& mutator) {
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= uint64_t{static_cast<uint8_t>(text[i])} << (8 * i);
  const std::string header = text.substr(kLengthBytes, length);
  const std::string data = text.substr(kLengthBytes + length);
  if (mutator.Below(6) == 0) return {WithLength(header, length + mutator.Below(9) - 4) + data, {}};
  if (mutator.Below(6) == 0) return {WithLength(header, length) + data.substr(0, mutator.Below(data.size())), {}};
  Mutant mutant = mutator.OfJson(ParseJson(header, "header"));
  const size_t changed_length = mutant.text.size();
  mutant.text = WithLength(mutant.text, changed_length) + data;
  return mutant;
}

/// A few bytes of what comes before the weights, or an early end.
Mutant MutateGguf(std::string text, Mutator& mutator) {
  constexpr size_t kMostBytes = 3;
  const size_t header = text.find("blk.1.ffn_norm.weight");
  if (mutator.Below(8) == 0) return {text.substr(0, mutator.Below(text.size())), {}};
  const size_t changes = 1 + mutator.Below(kMostBytes);
  for (size_t i = 0; i < changes; ++i) {
    text[mutator.Below(header)] = static_cast<char>(mutator.Below(2) == 0 ? mutator.Below(4) : mutator.Below(256));
  }
  return {std::move(text), {}};
}

}  // namespace

std::vector<Kind> WriteSamples(const std::string& program, const fs::path& folder) {
  constexpr size_t kSmallShards = 100'000;
  constexpr int kContext = 256;
  const std::string tuned = (folder / "tuned").string();
  MakeModel("tiny-llama", folder / "model", 1);
  Json config = LoadJson(folder / "model" / "config.json");
  config["max_position_embeddings"] = kContext;  // however many tokens a request asks for, they end soon
  WriteFile(folder / "model" / "config.json", config.dump());
  MakeModel("tiny-llama", folder / "shards", 1, {}, kSmallShards);
  fs::create_directories(folder / "gguf");
  fs::copy_file(fs::path(SourceDir()) / "tests" / "model" / "gguf" / "qwen2.gguf", folder / "gguf" / "model.gguf",
                fs::copy_options::overwrite_existing);
  WriteFile(folder / "text", "The quick \xC3\xA9 fox\n\n  jumps\tover <s> 12345 </s>\n\xF0\x9F\x98\x80\n");
  WriteFile(folder / "suite.json", kSuite);
  WriteFile(folder / "cluster.toml", kCluster);
  WriteFile(folder / "requests.jsonl", kRequest);
  Run(program, {"tune", "--model", (folder / "model").string(), "--devices", "cpu:2", "--threads-per-rank", "1",
                "--contexts", "16", "--repeats", "4", "--tuned", tuned});
  const std::string profile = FileNamed(tuned, "profile-").filename().string();
  const std::string table = FileNamed(tuned, "partitions-").filename().string();
  const std::string dtype = ParseJson(ReadFile(fs::path(tuned) / profile), profile)["key"]["dtype"];
  WriteFile(folder / "measured.toml",
            fmt::format("model = \"{}\"\ndtype = \"{}\"\ncontexts = [16]\n[[devices]]\nname = \"a\"\ncount = 2\n"
                        "profile = \"tuned/{}\"\n[links]\nbandwidth_gbs = 10\n",
                        (folder / "model").string(), dtype, profile));
  std::vector<std::string> searched = GenerateFrom("model");
  searched[4] = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16";
  searched.insert(searched.end(), {"--devices", "cpu:2", "--partition", "searched", "--tuned", "@/tuned"});
  const std::vector<std::string> inspect = {"inspect", "@/model"};
  return {{"config", "model", "config.json", Format::kJson, inspect, GenerateFrom("model")},
          {"generation config", "model", "generation_config.json", Format::kJson, GenerateFrom("model"), {}},
          {"tokenizer", "model", "tokenizer.json", Format::kJson, TokenizeFrom("model"), {}},
          {"tokenizer config", "model", "tokenizer_config.json", Format::kJson, TokenizeFrom("model"), {}},
          {"safetensors", "model", "model.safetensors", Format::kSafetensors, inspect, GenerateFrom("model")},
          {"index",
           "shards",
           "model.safetensors.index.json",
           Format::kJson,
           {"inspect", "@/shards"},
           GenerateFrom("shards")},
          {"gguf",
           "gguf",
           "model.gguf",
           Format::kGguf,
           {"inspect", "@/gguf/model.gguf"},
           GenerateFrom("gguf/model.gguf")},
          {"gguf tokenizer", "gguf", "model.gguf", Format::kGguf, TokenizeFrom("gguf/model.gguf"), {}},
          {"cluster", ".", "cluster.toml", Format::kToml, {"plan", "@/cluster.toml"}, {}},
          {"profile", "tuned", profile, Format::kJson, {"plan", "@/measured.toml"}, {}},
          {"partition table", "tuned", table, Format::kJson, searched, {}},
          {"suite", ".", "suite.json", Format::kJson, {"bench", "--from", "@/suite.json", "--plots", "@/plots"}, {}},
          {"requests",
           ".",
           "requests.jsonl",
           Format::kJsonLine,
           {"batch", "@/requests.jsonl", "--model", "@/model", "--threads-per-rank", "1"},
           {}}};
}

Mutant Mutate(const Kind& kind, const std::string& text, Mutator& mutator) {
  switch (kind.format) {
    case Format::kToml:
      return {mutator.OfToml(text), {}};
    case Format::kSafetensors:
      return MutateSafetensors(text, mutator);
    case Format::kGguf:
      return MutateGguf(text, mutator);
    case Format::kJsonLine: {
      Mutant mutant = mutator.OfJson(ParseJson(text, kind.file));
      std::replace(mutant.text.begin(), mutant.text.end(), '\n', ' ');  // several wrong lines are several messages
      return mutant;
    }
    case Format::kJson:
      break;
  }
  return mutator.OfJson(ParseJson(text, kind.file));
}

}  // namespace runahead::mutation
