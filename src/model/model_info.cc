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

void Count(const StoredTensor& tensor, TensorFacts& facts) {
  facts.parameters += std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
  facts.bytes += tensor.bytes();
  const auto at = std::lower_bound(facts.dtypes.begin(), facts.dtypes.end(), tensor.dtype);
  if (at == facts.dtypes.end() || *at != tensor.dtype) facts.dtypes.insert(at, tensor.dtype);
}

/// Parameters of packed matrices beyond the bytes that hold them.
int64_t PackedParameters(const WeightSources& sources) {
  int64_t further = 0;
  for (const LayerSource& layer : sources.layers) {
    if (!layer.mixture) continue;
    for (const MixtureSource::Expert& expert : layer.mixture->experts) {
      for (const StackedSource* stack : {&expert.gate_up, &expert.down}) {
        for (const MatrixSource& matrix : *stack) {
          if (matrix.layout != MatrixLayout::kMxfp4) continue;
          const int64_t bytes = StoredShape(matrix).elements() + ScalesShape(matrix).elements();
          further += (matrix.end - matrix.begin) * matrix.columns - bytes / matrix.matrices;
        }
      }
    }
  }
  return further;
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
    Count(*files.Find(tensor.name, tensor.shape, tensor.packed).tensor, info.weights);
    used.insert(tensor.name);
    used.insert(reader.ScalesOf(tensor.name));
  }
  info.weights.parameters += PackedParameters(sources);
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
  for (const auto& [name, place] : files.tensors()) Count(*place.tensor, facts);
  return facts;
}

}  // namespace runahead
