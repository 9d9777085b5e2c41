#include "model/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "model/architectures/common.h"
#include "model/gguf/dequantise.h"
#include "model/weight_list.h"
#include "model/weight_reader.h"
#include "runahead/error.h"

namespace runahead::gguf {
namespace {

/// One family as GGUF files name it.
struct Family {
  std::string_view name;          // general.architecture, which opens the keys of its options
  std::string_view architecture;  // the name in config.json
  bool paired = false;            // the features of heads turn in pairs of neighbours
};
constexpr std::array<Family, 3> kFamilies = {{
    {"llama", "LlamaForCausalLM", true},
    {"qwen2", "Qwen2ForCausalLM"},
    {"qwen3", "Qwen3ForCausalLM"},
}};

constexpr const char* kArchitecture = "general.architecture";
constexpr int64_t kMaxSize = int64_t{1} << 31;  // of anything; families ask for less

const Family& FamilyIn(const GgufFile& file) {
  const std::string_view name = file.Text(kArchitecture);
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.name == name) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.name);
  }
  file.Refuse(kArchitecture, "expected one of " + known);
}

/// The options of one family.
class Options {
 public:
  Options(const GgufFile& file, const Family& family) : file_(file), prefix_(std::string(family.name) + ".") {}

  [[nodiscard]] std::string Key(const char* name) const { return prefix_ + name; }
  [[nodiscard]] bool Has(const char* name) const { return file_.Has(Key(name)); }
  [[nodiscard]] double Number(const char* name) const { return file_.Number(Key(name)); }

  /// A size, or a list with the same one for every layer.
  [[nodiscard]] int64_t Size(const char* name) const {
    const std::string key = Key(name);
    const auto found = file_.metadata().find(key);
    const auto* list = found == file_.metadata().end() ? nullptr : std::get_if<GgufFile::Numbers>(&found->second);
    if (list == nullptr) return file_.Int(key, 1, kMaxSize);
    const double first = list->empty() ? 0 : list->front();
    const bool same = std::all_of(list->begin(), list->end(), [&](double size) { return size == first; });
    if (!same || !(first >= 1 && first <= kMaxSize)) {
      file_.Refuse(key, fmt::format("expected a size from 1 to {}, the same in every layer", kMaxSize));
    }
    return static_cast<int64_t>(first);
  }
  [[nodiscard]] int64_t Size(const char* name, int64_t otherwise) const { return Has(name) ? Size(name) : otherwise; }

  /// Refuses what may change numbers and is not read.
  void RefuseOthers() const {
    constexpr std::array kKnown = {"vocab_size",
                                   "context_length",
                                   "embedding_length",
                                   "block_count",
                                   "feed_forward_length",
                                   "tensor_data_layout",
                                   "rope.dimension_count",
                                   "rope.freq_base",
                                   "rope.scaling.type",
                                   "rope.scaling.factor",
                                   "rope.scaling.original_context_length",
                                   "rope.scaling.finetuned",
                                   "attention.head_count",
                                   "attention.head_count_kv",
                                   "attention.key_length",
                                   "attention.value_length",
                                   "attention.layer_norm_rms_epsilon"};
    for (const auto& [key, value] : file_.metadata()) {
      if (!key.starts_with(prefix_)) continue;
      const std::string_view name = key.substr(prefix_.size());
      if (std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end()) continue;
      const auto* count = std::get_if<uint64_t>(&value);
      if (name.starts_with("expert_") && count != nullptr && *count == 0) continue;
      file_.Refuse(std::string(key), "not supported");
    }
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

bool HasTensor(const GgufFile& file, const char* name) { return file.tensors().contains(name); }

const GgufFile::Tensor& EmbeddingOf(const GgufFile& file) {
  constexpr const char* kEmbedding = "token_embd.weight";
  const auto found = file.tensors().find(kEmbedding);
  if (found == file.tensors().end()) {
    throw ConfigError(fmt::format("{}: tensor {} is missing: the file holds no model", file.origin(), kEmbedding));
  }
  if (found->second.extents.size() != 2) {
    throw ConfigError(fmt::format("{}: tensor {}: expected 2 dimensions, got {}", file.origin(), kEmbedding,
                                  found->second.extents.size()));
  }
  return found->second;
}

/// The dtype to compute in where nobody asks for another: the widest that the matrices are worth.
const char* DTypeOf(const GgufFile::Tensor& embedding) {
  const ElementType* type = TypeOf(embedding.type);
  if (type != nullptr && type->name == "F32") return "float32";
  return type != nullptr && type->name == "F16" ? "float16" : "bfloat16";
}

void AddHeads(const GgufFile& file, const Options& options, Json& config) {
  const int64_t hidden = options.Size("embedding_length");
  const int64_t heads = options.Size("attention.head_count");
  const int64_t head_dim = options.Size("attention.key_length", hidden / heads);
  if (options.Size("attention.value_length", head_dim) != head_dim) {
    file.Refuse(options.Key("attention.value_length"), fmt::format("expected the keys' length, {}", head_dim));
  }
  if (options.Size("rope.dimension_count", head_dim) != head_dim) {
    file.Refuse(options.Key("rope.dimension_count"), fmt::format("expected all {} features of a head", head_dim));
  }
  config["hidden_size"] = hidden;
  config["num_attention_heads"] = heads;
  config["num_key_value_heads"] = options.Size("attention.head_count_kv", heads);
  config["head_dim"] = head_dim;
}

void AddRope(const GgufFile& file, const Options& options, Json& config) {
  if (options.Has("rope.freq_base")) config["rope_theta"] = options.Number("rope.freq_base");
  if (!options.Has("rope.scaling.type")) return;
  const std::string key = options.Key("rope.scaling.type");
  const std::string_view type = file.Text(key);
  if (type == "none") return;
  if (type != "linear" && type != "yarn") file.Refuse(key, "expected none, linear or yarn");
  Json rope = {{"rope_type", type}, {"factor", options.Number("rope.scaling.factor")}};
  constexpr const char* kTrained = "rope.scaling.original_context_length";
  if (options.Has(kTrained)) rope["original_max_position_embeddings"] = options.Size(kTrained);
  config["rope_scaling"] = std::move(rope);
}

/// The tokens that open a text and that end one.
void AddEnds(const GgufFile& file, int64_t vocab, Json& config) {
  constexpr std::array kEnds = {"eos", "eot", "eom"};
  Json ends = Json::array();
  for (const char* name : kEnds) {
    const std::optional<int32_t> id = file.TokenId(fmt::format("tokenizer.ggml.{}_token_id", name), vocab);
    if (id && std::find(ends.begin(), ends.end(), *id) == ends.end()) ends.push_back(static_cast<uint32_t>(*id));
  }
  if (!ends.empty()) config["eos_token_id"] = std::move(ends);
  if (const auto bos = file.TokenId("tokenizer.ggml.bos_token_id", vocab))
    config["bos_token_id"] = static_cast<uint32_t>(*bos);
}

/// The name in a GGUF file of what Llama's layout calls `name`.
std::string NameInFile(const std::string& name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kOfLayers = {{
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"},
  }};
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kOthers = {
      {{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}}};
  for (const auto& [known, in_file] : kOthers) {
    if (name == known) return std::string(in_file);
  }
  constexpr std::string_view kLayers = "model.layers.";
  CHECK(name.starts_with(kLayers));
  const std::string_view rest = std::string_view(name).substr(kLayers.size());
  const size_t dot = rest.find('.');
  for (const auto& [known, in_file] : kOfLayers) {
    if (rest.substr(dot + 1) == known) return fmt::format("blk.{}.{}", rest.substr(0, dot), in_file);
  }
  internal::CheckFailed(__FILE__, __LINE__, name + " has no name in GGUF files");
}

void DivideRope(const WeightFiles& weights, const std::string& origin, std::vector<float>& frequencies) {
  const HostTensor factors = WeightReader(weights, {}).Read(kRopeFactors, {std::ssize(frequencies)});
  Dispatch(factors.view.dtype(), [&](auto zero) {
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const auto factor = static_cast<float>(factors.view.As<decltype(zero)>()[i]);
      if (!(factor >= 1e-6F && factor <= 1e6F)) {
        throw ConfigError(fmt::format("{}: tensor {}: [{}]: expected a factor from 1e-6 to 1e6, got {}", origin,
                                      kRopeFactors, i, factor));
      }
      frequencies[i] /= factor;
    }
  });
}

}  // namespace

Json ConfigJson(const GgufFile& file) {
  constexpr const char* kParts = "split.count";
  if (file.Has(kParts) && file.Int(kParts, 0, UINT16_MAX) > 1)
    file.Refuse(kParts, "expected one file, joined from its parts");
  const Family& family = FamilyIn(file);
  const Options options(file, family);
  options.RefuseOthers();
  const GgufFile::Tensor& embedding = EmbeddingOf(file);
  const int64_t vocab = embedding.extents[1];
  Json config = {{"architectures", {family.architecture}},
                 {"model_type", family.name},
                 {"vocab_size", vocab},
                 {"num_hidden_layers", options.Size("block_count")},
                 {"intermediate_size", options.Size("feed_forward_length")},
                 {"max_position_embeddings", options.Size("context_length")},
                 {"rms_norm_eps", options.Number("attention.layer_norm_rms_epsilon")},
                 {"tie_word_embeddings", !HasTensor(file, "output.weight")},
                 {"attention_bias", HasTensor(file, "blk.0.attn_q.bias")},
                 {"mlp_bias", HasTensor(file, "blk.0.ffn_gate.bias")},
                 {"dtype", DTypeOf(embedding)}};
  AddHeads(file, options, config);
  AddRope(file, options, config);
  AddEnds(file, vocab, config);
  return config;
}

void Adapt(const GgufFile& file, const WeightFiles& weights, ParsedModel& model) {
  if (FamilyIn(file).paired) PairHeads(model.spec, model.sources);
  RenameTensors(model.sources, NameInFile);
  model.sources.prefix.clear();
  if (weights.Has(kRopeFactors)) DivideRope(weights, file.origin(), model.spec.rope.inverse_frequencies);
}

}  // namespace runahead::gguf
