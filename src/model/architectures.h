// The families of models that Runahead knows: how each one's config.json reads, and which tensors its files hold.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/decoder_spec.h"
#include "model/packed_weights.h"

namespace runahead {

/// Heads of which `rotary_dim` features from `first` on turn in pairs of neighbours (GPT-J, Cohere, GLM). They are
/// loaded so that the first of each pair come before the second, as RopeTable turns them.
struct PairedHeads {
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;  // 0: the features stay in their order
  int64_t first = 0;       // the first feature that turns
};

/// What the tensors of a matrix are called, and how they hold it.
enum class MatrixLayout : uint8_t {
  kWeight,  // `name`.weight and `name`.bias
  kBare,    // `name` of shape [matrices, columns, rows / matrices], and `name`_bias of [matrices, rows / matrices]
  kMxfp4,   // the numbers of kBare's transposed in blocks of 32: `name`_blocks and `name`_scales, and kBare's bias
};

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
  int64_t matrices = 0;     // the tensor is [matrices, rows / matrices, columns]; 0: [rows, columns]
  PairedHeads paired;       // of all rows
  bool transposed = false;  // the file holds [columns, rows] (GPT-2)
  // Others than kWeight are of all experts, and a source of one of them: [begin, end) is one of the matrices.
  MatrixLayout layout = MatrixLayout::kWeight;
  std::optional<PackedFormat> packed;  // the files hold the numbers of kWeight packed, by output and input
  bool unit_rows = false;              // each row is divided by its length (Baichuan 2's head)
  std::string biased_as;               // the tensor whose bias it has, where that is another one; empty: `name`
};

/// Matrices stacked by output row.
using StackedSource = std::vector<MatrixSource>;

/// The vector `name`.weight, and `name`.bias where there is one.
struct NormSource {
  std::string name;
  int64_t features = 0;
  bool bias = false;
  int64_t parts = 1;        // tensors `name`.0, `name`.1, ... of equal size, one after the other; 1: one, `name`
  int64_t heads = 0;        // the tensor is [heads, features / heads]; 0: [features]
  PairedHeads paired = {};  // of its features
  float epsilon = 0;        // 0: DecoderSpec::norm_epsilon
};

/// A vector by its whole name.
struct VectorSource {
  std::string name;
  int64_t elements = 0;
};

/// Where the experts of one layer come from; fields as in MixtureWeights.
struct MixtureSource {
  struct Expert {
    StackedSource gate_up;
    StackedSource down;
  };
  StackedSource router;
  std::vector<Expert> experts;
  std::optional<VectorSource> choice_bias;  // [experts to choose from]
};

/// Where the maps of latent attention come from.
struct LatentSource {
  StackedSource queries;  // [q_heads * query_dim, query_rank]; empty where the model has no query_rank
  MatrixSource expand;    // [q_heads * (plain_dim + value_dim), rank]: by head, the map to keys, then that to values
};

/// Where the weights of one layer come from; fields as in LayerWeights.
struct LayerSource {
  std::optional<NormSource> attention_norm;
  std::vector<StackedSource> qkv;  // parts: q | k,v
  std::optional<NormSource> q_norm;
  std::optional<NormSource> k_norm;
  std::optional<LatentSource> latent;
  std::optional<VectorSource> sinks;  // [q_heads]
  StackedSource out;
  std::optional<NormSource> post_attention_norm;
  std::optional<NormSource> mlp_norm;
  StackedSource gate_up;  // empty with a mixture
  StackedSource down;     // empty with a mixture
  std::optional<MixtureSource> mixture;
  std::optional<NormSource> post_mlp_norm;
};

/// Where all weights of a model come from.
struct WeightSources {
  /// What all names but the head's begin with: files may leave it out, or have another's in front (NameByFiles).
  std::string prefix = "model.";
  MatrixSource embedding;
  std::optional<MatrixSource> positions;  // the learned table
  std::optional<NormSource> embedding_norm;
  std::vector<LayerSource> layers;
  NormSource final_norm;
  std::array<int64_t, 2> scale_block = {128, 128};  // rows and columns of an FP8 matrix that share a scale
  std::optional<PackedFormat> packed;               // how matrices without plain numbers are packed
  MatrixSource head;                                // used where the files have it, or the head is not tied
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

/// Rows and columns of an FP8 matrix that share a scale, also in a folder of more than text. Throws ConfigError
/// naming the field and the value.
std::array<int64_t, 2> ScaleBlockOfWeights(const JsonObject& config);

/// How config.json says that matrices are packed; nothing: they are not. Throws what ScaleBlockOfWeights throws.
std::optional<PackedFormat> PackedFormatOfWeights(const JsonObject& config);

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
ParsedModel ParseGemma(const JsonObject& config);
ParsedModel ParseGemma3(const JsonObject& config);
ParsedModel ParseGemma3WithImages(const JsonObject& config);
ParsedModel ParseOlmo2(const JsonObject& config);
ParsedModel ParseOlmo3(const JsonObject& config);
ParsedModel ParseGranite(const JsonObject& config);
ParsedModel ParseSmolLm3(const JsonObject& config);
ParsedModel ParseStableLm(const JsonObject& config);
ParsedModel ParseStarcoder2(const JsonObject& config);
ParsedModel ParsePhi(const JsonObject& config);
ParsedModel ParseCohere(const JsonObject& config);
ParsedModel ParseCohere2(const JsonObject& config);
ParsedModel ParseGlm(const JsonObject& config);
ParsedModel ParseGlm4(const JsonObject& config);
ParsedModel ParseExaone4(const JsonObject& config);
ParsedModel ParseMinistral3(const JsonObject& config);
ParsedModel ParseMistral3(const JsonObject& config);
ParsedModel ParseNemotron(const JsonObject& config);
ParsedModel ParseInternLm2(const JsonObject& config);
ParsedModel ParseInternLm3(const JsonObject& config);
ParsedModel ParseGpt2(const JsonObject& config);
ParsedModel ParseOpt(const JsonObject& config);
ParsedModel ParseBloom(const JsonObject& config);
ParsedModel ParseBaichuan(const JsonObject& config);
ParsedModel ParseMixtral(const JsonObject& config);
ParsedModel ParseQwen2Moe(const JsonObject& config);
ParsedModel ParseQwen3Moe(const JsonObject& config);
ParsedModel ParseOlmoe(const JsonObject& config);
ParsedModel ParseGraniteMoe(const JsonObject& config);
ParsedModel ParseGraniteMoeShared(const JsonObject& config);
ParsedModel ParseGptOss(const JsonObject& config);
ParsedModel ParseDeepseekV2(const JsonObject& config);
ParsedModel ParseDeepseekV3(const JsonObject& config);

}  // namespace runahead
