// `runahead inspect`: what a model folder holds and what it needs.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/json.h"
#include "command.h"
#include "experiment/machine.h"
#include "model/model_info.h"
#include "model/obstacles.h"
#include "model/weight_bytes.h"
#include "model/workspace.h"
#include "ops/devices.h"
#include "output.h"
#include "report/table.h"
#include "report/units.h"
#include "runahead/error.h"
#include "runahead/tokenizer.h"

namespace runahead::cli {
namespace {

struct InspectFlags {
  std::string model;
  bool json = false;
};

/// Memory for a prompt as long as the context, beside the weights, which the ranks of a machine share.
struct Needs {
  int ranks = 0;
  size_t cache_bytes = 0;      // bytes on the rank that ends up with the whole cache
  size_t workspace_bytes = 0;  // bytes on each rank
};

std::vector<Needs> NeedsByRanks(const DecoderSpec& spec, DType compute) {
  std::vector<Needs> all;
  for (const int ranks : {1, 2, 4, 8}) {
    const int64_t chunk = (spec.max_positions + ranks - 1) / ranks;
    all.push_back({ranks, static_cast<size_t>(spec.max_positions) * spec.kv_shape(compute).BytesPerToken(),
                   Workspace::Bytes(spec, compute, chunk)});
  }
  return all;
}

/// The matrices in each format, beside the embedding, which stays in its file.
struct FormatNeeds {
  WeightFormat format;
  WeightBytes bytes;
};

std::vector<FormatNeeds> NeedsByFormat(const DecoderSpec& spec) {
  std::vector<FormatNeeds> all;
  for (const WeightFormat format :
       {WeightFormat::kStored, WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8}) {
    if (format == WeightFormat::kFp8 && spec.mixture.experts > 0) continue;  // no device multiplies experts in it
    all.push_back({format, WeightBytesOf(spec, format, spec.weights)});
  }
  return all;
}

std::string Dump(const Json& json, int indent = 2) {
  const std::string text = json.dump(indent, ' ', false, Json::error_handler_t::replace);
  return indent < 0 ? text : text + "\n";
}

/// The model's tokenizer, or why there is none.
struct TokenizerFacts {
  int32_t vocab = 0;
  std::string refusal;  // empty: it works
};

TokenizerFacts DescribeTokenizer(const std::string& folder) {
  try {
    return {Tokenizer::Load(folder).vocab_size(), ""};
  } catch (const Error& error) {
    return {0, error.what()};
  }
}

/// "4,096 positions in 16 of 32 layers", or "none".
std::string WindowText(const DecoderSpec& spec) {
  int64_t window = 0;
  int layers = 0;
  for (int layer = 0; layer < spec.layers; ++layer) {
    window = std::max(window, spec.window(layer));
    layers += spec.window(layer) != 0 ? 1 : 0;
  }
  if (layers == 0) return "none";
  return fmt::format("{} positions in {} of {} layers", report::Grouped(window), layers, spec.layers);
}

/// "5,632", or "8 of 128 experts of 768 beside one of 5,632, in 23 of 24 layers".
std::string MlpText(const DecoderSpec& spec) {
  using report::Grouped;
  const MixtureSpec& mixture = spec.mixture;
  if (mixture.experts == 0) return Grouped(spec.ffn);
  std::string text = fmt::format("{} of {} experts of {}", mixture.chosen, mixture.experts, Grouped(mixture.ffn));
  if (mixture.shared_ffn > 0) text += fmt::format(" beside one of {}", Grouped(mixture.shared_ffn));
  int mixing = 0;
  for (int layer = 0; layer < spec.layers; ++layer) mixing += spec.mixes(layer) ? 1 : 0;
  return mixing == spec.layers ? text : fmt::format("{} in {} of {} layers", text, mixing, spec.layers);
}

Json JsonOf(const ModelInfo& info, const TokenizerFacts& tokenizer, const MachineFacts& machine) {
  const DecoderSpec& spec = info.spec;
  const DType compute = PreferredDType(spec.weights);
  Json memory = Json::array();
  for (const Needs& needs : NeedsByRanks(spec, compute)) {
    memory.push_back(
        {{"ranks", needs.ranks}, {"kv_cache_bytes", needs.cache_bytes}, {"workspace_bytes", needs.workspace_bytes}});
  }
  Json formats = Json::array();
  for (const auto& [format, bytes] : NeedsByFormat(spec)) {
    formats.push_back({{"weights", Name(format)}, {"layer_bytes", bytes.layers}, {"head_bytes", bytes.head}});
  }
  Json windows = Json::array();
  for (int layer = 0; layer < spec.layers; ++layer) windows.push_back(spec.window(layer));
  return {{"supported", true},
          {"family", spec.family},
          {"architecture", spec.architecture},
          {"parameters", info.weights.parameters},
          {"active_parameters", info.active_parameters},
          {"weight_bytes", info.weights.bytes},
          {"dtypes", info.weights.dtypes},
          {"packed", info.packed},
          {"files", info.weights.files},
          {"ignored_tensors", info.ignored},
          {"context", spec.max_positions},
          {"layers", spec.layers},
          {"hidden", spec.hidden},
          {"q_heads", spec.q_heads},
          {"kv_heads", spec.kv_heads},
          {"head_dim", spec.head_dim},
          {"latent_rank", spec.latent.rank},
          {"ffn", spec.ffn},
          {"experts", spec.mixture.experts},
          {"experts_per_token", spec.mixture.chosen},
          {"expert_ffn", spec.mixture.ffn},
          {"shared_expert_ffn", spec.mixture.shared_ffn},
          {"vocab", spec.vocab},
          {"windows", windows},
          {"tied_head", spec.tied_head},
          {"tokenizer_vocab", tokenizer.vocab},
          {"tokenizer_refusal", tokenizer.refusal},
          {"compute_dtype", Name(compute)},
          {"kv_bytes_per_token", spec.kv_shape(compute).BytesPerToken()},
          {"full_context", memory},
          {"formats", formats},
          {"devices", {fmt::format("cpu:{}", machine.processors)}},
          {"cpu", machine.cpu},
          {"cpu_features", machine.features},
          {"processors", machine.processors},
          {"memory_bytes", machine.memory_bytes},
          {"f32_kernel", machine.f32_kernel},
          {"bf16_kernel", machine.bf16_kernel},
          {"int8_kernel", machine.int8_kernel}};
}

std::string FilesText(const TensorFacts& facts) {
  return fmt::format(
      "parameters    {}\n"
      "weights       {} of {} in {} file{}\n",
      report::Grouped(facts.parameters), report::Bytes(facts.bytes), fmt::join(facts.dtypes, ", "), facts.files,
      facts.files == 1 ? "" : "s");
}

std::string HeadsText(const DecoderSpec& spec) {
  if (spec.is_latent()) {
    return fmt::format("{} for queries, over latent vectors of {} features and keys of {}", spec.q_heads,
                       spec.latent.rank, spec.head_dim);
  }
  return fmt::format("{} for queries, {} for keys and values, of {} features", spec.q_heads, spec.kv_heads,
                     spec.head_dim);
}

std::string TextOf(const ModelInfo& info, const TokenizerFacts& tokenizer, const MachineFacts& machine) {
  using report::Bytes;
  using report::Grouped;
  const DecoderSpec& spec = info.spec;
  const DType compute = PreferredDType(spec.weights);
  std::string text = fmt::format("family        {} ({})\n", spec.family, spec.architecture);
  text += FilesText(info.weights);
  if (!info.packed.empty()) text += fmt::format("packed        {}\n", info.packed);
  if (info.active_parameters != info.weights.parameters) {
    text += fmt::format("active        {} parameters for each token\n", Grouped(info.active_parameters));
  }
  text += fmt::format(
      "context       {} tokens\n"
      "shape         {} layers of {} features, MLP {}, vocabulary {}{}\n"
      "heads         {}\n"
      "window        {}\n"
      "KV-cache      {} per token in {}\n"
      "processor     {}, {} to use ({})\n"
      "computes in   {}\n",
      Grouped(spec.max_positions), spec.layers, Grouped(spec.hidden), MlpText(spec), Grouped(spec.vocab),
      spec.tied_head ? ", tied head" : "", HeadsText(spec), WindowText(spec),
      Bytes(spec.kv_shape(compute).BytesPerToken()), Name(compute), machine.cpu, machine.processors,
      fmt::join(machine.features, " "), Name(compute));
  text += tokenizer.refusal.empty() ? fmt::format("tokenizer     {} ids\n", Grouped(tokenizer.vocab))
                                    : fmt::format("tokenizer     not usable: {}\n", tokenizer.refusal);
  if (!info.ignored.empty()) {
    text += fmt::format("ignored       {} tensors that this family does not use, the first is {}\n",
                        Grouped(std::ssize(info.ignored)), info.ignored.front());
  }
  text += "supported     yes\n\n";
  std::vector<std::vector<std::string>> rows;
  for (const Needs& needs : NeedsByRanks(spec, compute)) {
    rows.push_back({std::to_string(needs.ranks), Bytes(needs.cache_bytes), Bytes(needs.workspace_bytes),
                    Bytes(needs.cache_bytes + needs.workspace_bytes)});
  }
  std::vector<std::vector<std::string>> formats;
  for (const auto& [format, bytes] : NeedsByFormat(spec)) {
    formats.push_back({std::string(Name(format)), Bytes(bytes.layers), Bytes(bytes.head), Bytes(bytes.total())});
  }
  text += "Its matrices need, by --weights, and each decoded token reads:\n\n" +
          report::FormatTable({{"format", report::Align::kLeft}, {"layers"}, {"head"}, {"together"}}, formats) + "\n";
  return text + "A prompt of the whole context needs, on its last rank and beside the weights:\n\n" +
         report::FormatTable({{"ranks"}, {"KV-cache"}, {"workspace"}, {"together"}}, rows);
}

/// What can be said of a model that does not run: its name, its tensors where they can be read, what is in its way.
void PrintUnsupported(const InspectFlags& flags, const Json& config, const std::string& reason) {
  const Json name = config.is_object() ? config.value("architectures", Json(nullptr)) : Json(nullptr);
  std::vector<std::string> refusals = Obstacles(flags.model, config);
  if (refusals.empty()) refusals.push_back(reason);
  std::optional<TensorFacts> facts;
  try {
    facts = DescribeTensors(flags.model);
  } catch (const Error&) {  // which is one of the refusals
  }
  if (flags.json) {
    Json json = {{"supported", false}, {"refusal", reason}, {"refusals", refusals}, {"architectures", name}};
    if (facts) {
      json.update({{"parameters", facts->parameters},
                   {"weight_bytes", facts->bytes},
                   {"dtypes", facts->dtypes},
                   {"files", facts->files}});
    }
    return WriteOut(Dump(json));
  }
  WriteOut(fmt::format("architecture  {}\n{}supported     no: {}\n", Dump(name, -1), facts ? FilesText(*facts) : "",
                       fmt::join(refusals, "\n              and: ")));
}

int RunInspect(const InspectFlags& flags) {
  const Json config = ReadModelJson(flags.model);
  try {
    const ModelInfo info = DescribeModel(ModelConfig(flags.model, config));
    const TokenizerFacts tokenizer = DescribeTokenizer(flags.model);
    const MachineFacts machine = DescribeMachine();
    WriteOut(flags.json ? Dump(JsonOf(info, tokenizer, machine)) : TextOf(info, tokenizer, machine));
    return 0;
  } catch (const ConfigError& refusal) {
    PrintUnsupported(flags, config, refusal.what());
    throw;
  }
}

}  // namespace

Action AddInspect(CLI::App& command) {
  auto flags = std::make_shared<InspectFlags>();
  command.add_option("model", flags->model, "A Hugging Face folder or GGUF file")->required()->type_name("MODEL");
  command.add_flag("--json", flags->json, "Print one JSON object");
  return [flags] { return RunInspect(*flags); };
}

}  // namespace runahead::cli
