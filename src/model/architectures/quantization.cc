// What config.json says of weights that are stored in fewer bits.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "model/architectures/common.h"

namespace runahead {
namespace {

constexpr int64_t kUsualExtent = 128;  // of the fp8 method, where nothing is said
constexpr int64_t kMostInputs = int64_t{1} << 30;

std::array<int64_t, 2> Extents(const JsonObject& config, const char* key) {
  constexpr int64_t kMost = int64_t{1} << 20;
  if (!config.Has(key)) return {kUsualExtent, kUsualExtent};
  const Json& value = config.At(key);
  const auto right = [](const Json& extent) {
    return extent.is_number_unsigned() && extent.get<uint64_t>() >= 1 && extent.get<uint64_t>() <= kMost;
  };
  if (!value.is_array() || value.size() != 2 || !right(value[0]) || !right(value[1])) {
    config.Refuse(key, fmt::format("expected two numbers from 1 to {}", kMost));
  }
  return {value[0].get<int64_t>(), value[1].get<int64_t>()};
}

/// What `read` makes of the weights of each of compressed-tensors' groups, which must agree.
template <typename Read>
auto OfGroups(const JsonObject& quantization, const Read& read) {
  std::optional<typename std::invoke_result_t<Read, JsonObject>::value_type> all;
  if (!quantization.Has("config_groups")) return all;
  const JsonObject groups = quantization.Object("config_groups");
  for (const auto& [name, group] : groups.json().items()) {
    const JsonObject one = groups.Object(name.c_str());
    if (!one.Has("weights")) continue;
    const auto own = read(one.Object("weights"));
    if (!own) continue;
    if (all && *all != *own) groups.Refuse(name.c_str(), "expected weights like those of the groups before");
    all = own;
  }
  return all;
}

std::optional<std::array<int64_t, 2>> BlockOfGroup(const JsonObject& weights) {
  if (!weights.Has("block_structure")) return std::nullopt;
  return Extents(weights, "block_structure");
}

/// The value of a field, one of `supported`, which the field has where it is not there.
std::string OneOf(const JsonObject& config, const char* key, std::initializer_list<std::string_view> supported) {
  std::string value = config.String(key, std::string(*supported.begin()));
  std::transform(value.begin(), value.end(), value.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  if (std::find(supported.begin(), supported.end(), value) == supported.end()) {
    config.Refuse(key, fmt::format("not supported; supported {} {}", supported.size() == 1 ? "is" : "are",
                                   fmt::join(supported, ", ")));
  }
  return value;
}

void RefuseUnless(bool right, const JsonObject& config, const char* key, std::string_view supported) {
  if (!right) config.Refuse(key, fmt::format("not supported; supported {}", supported));
}

int Bits(const JsonObject& config, const char* key, bool eight) {
  const int64_t bits = config.Int(key, INT32_MIN, INT32_MAX, 4);
  RefuseUnless(bits == 4 || (eight && bits == 8), config, key, eight ? "are 4 and 8" : "is 4");
  return static_cast<int>(bits);
}

/// Inputs that share a scale; 0: all of them.
int64_t GroupSize(const JsonObject& config) {
  const int64_t size = config.Int("group_size", -1, kMostInputs, kUsualExtent);
  if (size == 0) config.Refuse("group_size", fmt::format("expected -1, or from 1 to {}", kMostInputs));
  return size == -1 ? 0 : size;
}

PackedFormat ReadAwq(const JsonObject& config) {
  for (const char* key : {"version", "format", "checkpoint_format"}) (void)OneOf(config, key, {"gemm"});
  RefuseUnless(config.String("backend", "") != "llm-awq", config, "backend", "is autoawq");
  RefuseUnless(config.Bool("zero_point", true), config, "zero_point", "is true");
  PackedFormat format;
  format.method = PackedMethod::kAwq;
  format.bits = Bits(config, "bits", /*eight=*/false);
  format.group = GroupSize(config);
  return format;
}

PackedFormat ReadGptq(const JsonObject& config) {
  PackedFormat format;
  format.method = PackedMethod::kGptq;
  format.bits = Bits(config, "bits", /*eight=*/true);
  format.group = GroupSize(config);
  const char* const key = config.Has("checkpoint_format") ? "checkpoint_format" : "format";
  format.zeros_less_one = OneOf(config, key, {"gptq", "gptq_v2"}) == "gptq";
  RefuseUnless(!config.Bool("is_marlin_format", false), config, "is_marlin_format", "is false");
  (void)OneOf(config, "pack_dtype", {"int32"});
  format.needs_group_index = config.Bool("desc_act", false) && format.group != 0;
  if (!config.Has("dynamic")) return format;
  const JsonObject dynamic = config.Object("dynamic");  // by patterns of names; "-:" leaves modules as they are
  for (const auto& [pattern, ignored] : dynamic.json().items()) {
    RefuseUnless(pattern.starts_with("-:"), dynamic, pattern.c_str(),
                 "are patterns of modules to leave out, \"-:...\"");
  }
  return format;
}

/// Refuses what compressed-tensors does to weights beside quantising them.
void RefuseOtherChanges(const JsonObject& config) {
  for (const char* key : {"transform_config", "sparsity_config"}) {
    if (!config.Has(key) || config.At(key).empty()) continue;
    const Json& value = config.At(key);
    const bool dense = value.is_object() && value.value("format", Json()) == "dense";
    RefuseUnless(dense, config, key, "are an empty one and dense weights");
  }
}

std::string Strategy(const JsonObject& weights, std::initializer_list<std::string_view> supported) {
  if (weights.Has("strategy") || !weights.Has("group_size")) return OneOf(weights, "strategy", supported);
  return GroupSize(weights) == 0 ? "channel" : "group";
}

std::optional<PackedFormat> PackedOfGroup(const JsonObject& weights) {
  PackedFormat format;
  format.method = PackedMethod::kCompressedTensors;
  (void)OneOf(weights, "type", {"int"});
  format.bits = Bits(weights, "num_bits", /*eight=*/true);
  const std::string strategy = Strategy(weights, {"tensor", "channel", "group"});
  format.group = strategy == "group" ? GroupSize(weights) : 0;
  format.one_scale = strategy == "tensor";
  format.zero_points = !weights.Bool("symmetric", true);
  RefuseUnless(!format.zero_points || !format.one_scale, weights, "symmetric", "is true with the strategy tensor");
  const std::string order =
      weights.Has("actorder") && weights.At("actorder").is_string() ? weights.String("actorder") : std::string();
  format.needs_group_index = order == "group" || order == "dynamic";
  return format;
}

/// Refuses int8 weights with other scales than one for each row, or one.
std::optional<bool> CheckInt8OfGroup(const JsonObject& weights) {
  (void)OneOf(weights, "type", {"int"});
  RefuseUnless(weights.Int("num_bits", INT32_MIN, INT32_MAX, 8) == 8, weights, "num_bits", "is 8");
  (void)OneOf(weights, "strategy", {"tensor", "channel"});
  RefuseUnless(weights.Bool("symmetric", true), weights, "symmetric", "is true");
  return true;
}

/// What the configuration's part on quantisation says.
struct Quantisation {
  std::array<int64_t, 2> scale_block = {kUsualExtent, kUsualExtent};
  std::optional<PackedFormat> packed;
};

Quantisation ReadCompressedTensors(const JsonObject& config) {
  Quantisation all;
  const std::string format = OneOf(config, "format", {"pack-quantized", "int-quantized", "float-quantized"});
  RefuseOtherChanges(config);
  if (format == "pack-quantized") {
    all.packed = OfGroups(config, PackedOfGroup);
    if (!all.packed) config.Refuse("config_groups", "expected groups with weights");
  } else if (format == "int-quantized") {
    (void)OfGroups(config, CheckInt8OfGroup);
  } else {
    all.scale_block = OfGroups(config, BlockOfGroup).value_or(all.scale_block);
  }
  return all;
}

Quantisation ReadMethod(const JsonObject& config, bool mxfp4) {
  Quantisation all;
  const std::string method = config.String("quant_method", "none");
  if (method == "fp8") {
    all.scale_block = Extents(config, "weight_block_size");
  } else if (method == "compressed-tensors") {
    all = ReadCompressedTensors(config);
  } else if (method == "awq") {
    all.packed = ReadAwq(config);
  } else if (method == "gptq") {
    all.packed = ReadGptq(config);
  } else if (method != "mxfp4" || !mxfp4) {
    config.Refuse("quant_method", "not supported; supported are awq, compressed-tensors, fp8, gptq");
  }
  return all;
}

Quantisation ReadQuantisation(const JsonObject& config, bool mxfp4) {
  constexpr const char* kPart = "quantization_config";
  if (!config.Has(kPart)) return {};
  try {
    return ReadMethod(config.Object(kPart), mxfp4);
  } catch (const FieldError& refusal) {
    throw FieldError(kPart, refusal.what());  // of the whole part, so that Obstacles reads on without it
  }
}

/// The same of a folder of a model, where it may be one of more than text.
Quantisation QuantisationOfFolder(const JsonObject& config) {
  if (!config.Has("text_config")) return ReadQuantisation(config, true);
  const Json text = TextConfig(config);
  return ReadQuantisation(JsonObject(text, config.origin() + ": text_config"), false);
}

}  // namespace

std::array<int64_t, 2> ScaleBlock(const JsonObject& config, bool mxfp4) {
  return ReadQuantisation(config, mxfp4).scale_block;
}

std::array<int64_t, 2> ScaleBlockOfWeights(const JsonObject& config) {
  return QuantisationOfFolder(config).scale_block;
}

std::optional<PackedFormat> PackedFormatOfWeights(const JsonObject& config) {
  return QuantisationOfFolder(config).packed;
}

}  // namespace runahead
