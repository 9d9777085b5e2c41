// What config.json says of weights that are stored in fewer bits.
#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "model/architectures/common.h"

namespace runahead {
namespace {

constexpr int64_t kUsualExtent = 128;  // of the fp8 method, where nothing is said

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

/// The blocks of compressed-tensors' groups, which must agree.
std::array<int64_t, 2> ExtentsOfGroups(const JsonObject& quantization) {
  std::optional<std::array<int64_t, 2>> extents;
  if (quantization.Has("config_groups")) {
    const JsonObject groups = quantization.Object("config_groups");
    for (const auto& [name, group] : groups.json().items()) {
      const JsonObject one = groups.Object(name.c_str());
      if (!one.Has("weights") || !one.Object("weights").Has("block_structure")) continue;
      const std::array<int64_t, 2> own = Extents(one.Object("weights"), "block_structure");
      if (extents && *extents != own) groups.Refuse(name.c_str(), "expected blocks like those of the groups before");
      extents = own;
    }
  }
  return extents.value_or(std::array{kUsualExtent, kUsualExtent});
}

}  // namespace

std::array<int64_t, 2> ScaleBlock(const JsonObject& config, bool mxfp4) {
  if (!config.Has("quantization_config")) return {kUsualExtent, kUsualExtent};
  const JsonObject quantization = config.Object("quantization_config");
  const std::string method = quantization.String("quant_method", "none");
  if (method == "fp8") return Extents(quantization, "weight_block_size");
  if (method == "compressed-tensors" && quantization.String("format", "") == "float-quantized") {
    return ExtentsOfGroups(quantization);
  }
  if (method == "mxfp4" && mxfp4) return {kUsualExtent, kUsualExtent};
  config.Refuse("quantization_config", "not supported; supported are fp8, and compressed-tensors of float-quantized");
}

std::array<int64_t, 2> ScaleBlockOfWeights(const JsonObject& config) {
  if (!config.Has("text_config")) return ScaleBlock(config, true);
  const Json text = TextConfig(config);
  return ScaleBlock(JsonObject(text, config.origin() + ": text_config"));
}

}  // namespace runahead
