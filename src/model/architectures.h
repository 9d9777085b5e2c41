// The families of models that Runahead knows: how each one's config.json reads, and which tensors its files hold.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/decoder_spec.h"

namespace runahead {

/// Rows [begin, end) of the matrix `name`.weight, and of the vector `name`.bias where there is one; in fused matrices
/// `blocks` such ranges, each `stride` rows behind the one before.
struct MatrixSource {
  std::string name;
  int64_t rows = 0;     // rows of the whole tensor
  int64_t columns = 0;  // in_features
  bool bias = false;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t blocks = 1;
  int64_t stride = 0;
};

/// Matrices stacked by output row.
using StackedSource = std::vector<MatrixSource>;

/// The vector `name`.weight, and `name`.bias where there is one.
struct NormSource {
  std::string name;
  int64_t features = 0;
  bool bias = false;
};

/// Where the weights of one layer come from; fields as in LayerWeights.
struct LayerSource {
  NormSource attention_norm;
  std::vector<StackedSource> qkv;  // parts: q | k,v
  std::optional<NormSource> q_norm;
  std::optional<NormSource> k_norm;
  StackedSource out;
  std::optional<NormSource> post_attention_norm;
  std::optional<NormSource> mlp_norm;
  StackedSource gate_up;
  StackedSource down;
  std::optional<NormSource> post_mlp_norm;
};

/// Where all weights of a model come from.
struct WeightSources {
  MatrixSource embedding;
  std::vector<LayerSource> layers;
  NormSource final_norm;
  MatrixSource head;  // used where the files have it, or the head is not tied
};

/// A family's reading of one config.json: the shape of the model and where its weights are.
struct ParsedModel {
  DecoderSpec spec;
  WeightSources sources;
};

/// One row of the table of families.
struct Architecture {
  std::string_view name;        // the entry in `architectures` of config.json
  std::string_view model_type;  // the `model_type` of files that do not name the architecture
  ParsedModel (*parse)(const JsonObject& config);
};

/// The family that config.json names. Throws ConfigError naming the architecture when it is not in the table.
const Architecture& FindArchitecture(const JsonObject& config);

/// The model_type that goes with an architecture of the table.
std::string_view FamilyOf(std::string_view architecture);

/// The names of the table, for messages: "LlamaForCausalLM, ...".
std::string ArchitectureNames();

// ---- One file each under architectures/. Each throws ConfigError naming a field that it cannot honour.
ParsedModel ParseLlama(const JsonObject& config);
ParsedModel ParseMistral(const JsonObject& config);
ParsedModel ParseQwen2(const JsonObject& config);
ParsedModel ParseQwen3(const JsonObject& config);
ParsedModel ParsePhi3(const JsonObject& config);
ParsedModel ParseGemma2(const JsonObject& config);
ParsedModel ParseFalcon(const JsonObject& config);
ParsedModel ParseGptNeoX(const JsonObject& config);

}  // namespace runahead
