#include "model/model_info.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "model/architectures.h"
#include "model/gguf_config.h"
#include "model/safetensors.h"
#include "model/weight_list.h"
#include "model/weight_reader.h"

namespace runahead {
namespace {

int64_t Elements(const StoredTensor& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
}

void Count(const StoredTensor& tensor, int64_t parameters, TensorFacts& facts) {
  facts.parameters += parameters;
  facts.bytes += tensor.bytes();
  const auto at = std::lower_bound(facts.dtypes.begin(), facts.dtypes.end(), tensor.dtype);
  if (at == facts.dtypes.end() || *at != tensor.dtype) facts.dtypes.insert(at, tensor.dtype);
}

}  // namespace

ModelInfo DescribeModel(const ModelConfig& config) {
  ModelInfo info;
  info.spec = config.spec();
  info.spec.weights = config.WeightDType();
  WeightSources sources = config.sources();
  const WeightFiles files(config.dir());
  info.weights.files = files.files();
  std::set<std::string> used;
  NameByFiles(info.spec, files, sources);
  const WeightReader reader(files, sources.scale_block);
  for (const NamedShape& tensor : ListWeights(sources)) {
    Count(*files.Find(tensor).tensor, tensor.parameters.value_or(tensor.shape.elements()), info.weights);
    used.insert(tensor.name);
    used.insert(reader.ScalesOf(tensor.name));
  }
  if (sources.packed) info.packed = ShowPacked(*sources.packed);
  used.insert(gguf::kRopeFactors);
  info.active_parameters = info.weights.parameters;
  for (int layer = 0; layer < info.spec.layers; ++layer) {
    const MlpWeights mlp = info.spec.mlp_weights(layer);
    info.active_parameters -= info.spec.hidden * (mlp.total - mlp.active);
  }
  for (const auto& [name, place] : files.tensors()) {
    if (!used.contains(name)) info.ignored.push_back(name);
  }
  return info;
}

TensorFacts DescribeTensors(const std::filesystem::path& dir) {
  const WeightFiles files(dir);
  TensorFacts facts;
  facts.files = files.files();
  for (const auto& [name, place] : files.tensors()) Count(*place.tensor, Elements(*place.tensor), facts);
  return facts;
}

}  // namespace runahead
