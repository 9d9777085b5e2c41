#include "model/model_info.h"

#include <set>

#include "model/architectures.h"
#include "model/model_loader.h"
#include "model/safetensors.h"
#include "model/weight_list.h"

namespace runahead {

ModelInfo DescribeModel(const std::filesystem::path& dir) {
  ModelInfo info;
  ParsedModel model = LoadConfig(dir);
  const WeightSources& sources = model.sources;
  info.spec = std::move(model.spec);
  const WeightFiles files(dir);
  std::set<std::string> dtypes;
  for (const auto& [name, shape] : ListWeights(sources, HasSeparateHead(info.spec, sources, files))) {
    const StoredTensor& tensor = *files.Find(name, shape).tensor;
    info.parameters += shape.elements();
    info.weight_bytes += tensor.bytes();
    dtypes.insert(tensor.dtype);
  }
  info.dtypes.assign(dtypes.begin(), dtypes.end());
  info.files = files.files();
  info.kv_bytes_per_token = info.spec.kv_shape(info.spec.weights).BytesPerToken();
  return info;
}

}  // namespace runahead
