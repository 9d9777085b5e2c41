#include "prefill/described_cluster.h"

#include <fmt/format.h>

#include "base/input_file.h"
#include "model/architectures.h"
#include "model/model_loader.h"
#include "model/presets.h"
#include "prefill/work_shape_of.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// The sizes of a preset of make-model, or of a model's folder. Throws ConfigError that opens with `origin` for what
/// is neither.
WorkShape ShapeOfModel(const std::string& model, DType dtype, const std::string& origin) {
  std::error_code error;
  const bool is_path =
      model.find('/') != std::string::npos || std::filesystem::exists(std::filesystem::symlink_status(model, error));
  if (is_path) return WorkShapeOf(ModelConfig(model).spec(), dtype);
  const Json config = PresetConfig(FindPreset(model, origin));
  const JsonObject object(config, "preset " + model);
  return WorkShapeOf(FindArchitecture(object).parse(object).spec, dtype);
}

}  // namespace

DescribedCluster Describe(Cluster cluster, const std::string& model, const std::filesystem::path& folder) {
  DescribedCluster described;
  if (!model.empty()) cluster.model = model;
  const std::optional<DType> dtype = ParseDType(cluster.dtype);
  if (!dtype)
    throw ConfigError(fmt::format("{}: dtype: expected f32, bf16 or f16, got '{}'", cluster.origin, cluster.dtype));
  described.shape = ShapeOfModel(cluster.model, *dtype, model.empty() ? cluster.origin + ": model" : "model");
  described.costs = cluster.CostsFor(described.shape, folder);
  described.cluster = std::move(cluster);
  return described;
}

DescribedCluster DescribeFile(const std::string& path, const std::string& model) {
  return Describe(ParseCluster(ReadInput(path), path), model, std::filesystem::path(path).parent_path());
}

DescribedCluster DescribePreset(std::string_view name, const std::string& model) {
  const ClusterPreset& preset = FindClusterPreset(name);
  return Describe(ParseCluster(preset.toml, std::string(preset.name)), model, {});
}

}  // namespace runahead
