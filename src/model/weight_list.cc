#include "model/weight_list.h"

#include <set>

namespace runahead {
namespace {

/// Collects tensors, each once: several parts may be rows of the same fused tensor.
class Collector {
 public:
  void Add(const MatrixSource& matrix) {
    AddTensor(matrix.name + ".weight", {matrix.rows, matrix.columns});
    if (matrix.bias) AddTensor(matrix.name + ".bias", {matrix.rows});
  }
  void Add(const StackedSource& stack) {
    for (const MatrixSource& matrix : stack) Add(matrix);
  }
  void Add(const std::optional<NormSource>& norm) {
    if (norm) Add(*norm);
  }
  void Add(const NormSource& norm) {
    AddTensor(norm.name + ".weight", {norm.features});
    if (norm.bias) AddTensor(norm.name + ".bias", {norm.features});
  }
  std::vector<NamedShape> Take() { return std::move(list_); }

 private:
  void AddTensor(std::string name, const Shape& shape) {
    if (seen_.insert(name).second) list_.push_back({std::move(name), shape});
  }

  std::set<std::string> seen_;
  std::vector<NamedShape> list_;
};

}  // namespace

std::vector<NamedShape> ListWeights(const WeightSources& sources) {
  Collector collector;
  collector.Add(sources.embedding);
  for (const LayerSource& layer : sources.layers) {
    collector.Add(layer.attention_norm);
    for (const StackedSource& part : layer.qkv) collector.Add(part);
    collector.Add(layer.q_norm);
    collector.Add(layer.k_norm);
    collector.Add(layer.out);
    collector.Add(layer.post_attention_norm);
    collector.Add(layer.mlp_norm);
    collector.Add(layer.gate_up);
    collector.Add(layer.down);
    collector.Add(layer.post_mlp_norm);
  }
  collector.Add(sources.final_norm);
  collector.Add(sources.head);
  return collector.Take();
}

void NameTiedWeights(const DecoderSpec& spec, const WeightFiles& files, WeightSources& sources) {
  if (!spec.tied_head) return;
  if (!files.Has(sources.head.name + ".weight")) {
    sources.head.name = sources.embedding.name;
  } else if (!files.Has(sources.embedding.name + ".weight")) {
    sources.embedding.name = sources.head.name;
  }
}

}  // namespace runahead
