#include "model/weight_list.h"

#include <fmt/format.h>

#include <array>
#include <set>
#include <utility>

#include "model/weight_reader.h"

namespace runahead {
namespace {

/// Collects tensors, each once: several parts may be rows of the same fused tensor.
class Collector {
 public:
  void Add(const MatrixSource& matrix) {
    if (matrix.packed) {
      for (NamedShape& tensor : PackedTensors(*matrix.packed, matrix.name, matrix.rows, matrix.columns)) {
        Add(std::move(tensor));
      }
    } else if (matrix.layout == MatrixLayout::kMxfp4) {
      Add(NamedShape{WeightName(matrix), StoredShape(matrix), kBytesName, matrix.rows * matrix.columns});
      Add(NamedShape{ScalesName(matrix), ScalesShape(matrix), kBytesName, 0});
    } else {
      Add(NamedShape{WeightName(matrix), StoredShape(matrix)});
    }
    if (matrix.bias) Add(NamedShape{BiasName(matrix), BiasShape(matrix)});
  }
  void Add(const StackedSource& stack) {
    for (const MatrixSource& matrix : stack) Add(matrix);
  }
  template <typename Source>
  void Add(const std::optional<Source>& source) {
    if (source) Add(*source);
  }
  void Add(const MixtureSource& mixture) {
    Add(mixture.router);
    for (const MixtureSource::Expert& expert : mixture.experts) {
      Add(expert.gate_up);
      Add(expert.down);
    }
    Add(mixture.choice_bias);
  }
  void Add(const LatentSource& latent) {
    Add(latent.queries);
    Add(latent.expand);
  }
  void Add(const NormSource& norm) {
    for (const std::string& name : NormNames(norm)) {
      Add(NamedShape{name + ".weight", NormShape(norm)});
      if (norm.bias) Add(NamedShape{name + ".bias", NormShape(norm)});
    }
  }
  void Add(const VectorSource& vector) { Add(NamedShape{vector.name, {vector.elements}}); }
  std::vector<NamedShape> Take() { return std::move(list_); }

 private:
  void Add(NamedShape tensor) {
    if (seen_.insert(tensor.name).second) list_.push_back(std::move(tensor));
  }

  std::set<std::string> seen_;
  std::vector<NamedShape> list_;
};

}  // namespace

std::vector<std::string> NormNames(const NormSource& norm) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < norm.parts; ++i) {
    names.push_back(norm.parts == 1 ? norm.name : fmt::format("{}.{}", norm.name, i));
  }
  return names;
}

Shape NormShape(const NormSource& norm) {
  if (norm.heads == 0) return {norm.features / norm.parts};
  return {norm.heads, norm.features / norm.heads};
}

std::vector<NamedShape> ListWeights(const WeightSources& sources) {
  Collector collector;
  collector.Add(sources.embedding);
  collector.Add(sources.positions);
  collector.Add(sources.embedding_norm);
  for (const LayerSource& layer : sources.layers) {
    collector.Add(layer.attention_norm);
    for (const StackedSource& part : layer.qkv) collector.Add(part);
    collector.Add(layer.q_norm);
    collector.Add(layer.k_norm);
    collector.Add(layer.latent);
    collector.Add(layer.sinks);
    collector.Add(layer.out);
    collector.Add(layer.post_attention_norm);
    collector.Add(layer.mlp_norm);
    collector.Add(layer.gate_up);
    collector.Add(layer.down);
    collector.Add(layer.mixture);
    collector.Add(layer.post_mlp_norm);
  }
  collector.Add(sources.final_norm);
  collector.Add(sources.head);
  return collector.Take();
}

namespace {

/// Calls visit(name) for the name of each source.
template <typename Visit>
void ForNames(WeightSources& sources, const Visit& visit) {
  const auto stack = [&](StackedSource& matrices) {
    for (MatrixSource& matrix : matrices) visit(matrix.name);
  };
  const auto optional = [&](auto& source) {
    if (source) visit(source->name);
  };
  visit(sources.embedding.name);
  optional(sources.positions);
  optional(sources.embedding_norm);
  visit(sources.final_norm.name);
  for (LayerSource& layer : sources.layers) {
    for (auto* norm : {&layer.attention_norm, &layer.q_norm, &layer.k_norm, &layer.post_attention_norm,
                       &layer.mlp_norm, &layer.post_mlp_norm}) {
      optional(*norm);
    }
    for (StackedSource& part : layer.qkv) stack(part);
    for (StackedSource* matrices : {&layer.out, &layer.gate_up, &layer.down}) stack(*matrices);
    optional(layer.sinks);
    if (layer.latent) {
      stack(layer.latent->queries);
      visit(layer.latent->expand.name);
    }
    if (!layer.mixture) continue;
    stack(layer.mixture->router);
    optional(layer.mixture->choice_bias);
    for (MixtureSource::Expert& expert : layer.mixture->experts) {
      stack(expert.gate_up);
      stack(expert.down);
    }
  }
}

/// Experts of MXFP4 where the files hold those.
void FindPackedExperts(const WeightFiles& files, WeightSources& sources) {
  for (LayerSource& layer : sources.layers) {
    if (!layer.mixture) continue;
    for (MixtureSource::Expert& expert : layer.mixture->experts) {
      for (StackedSource* stack : {&expert.gate_up, &expert.down}) {
        for (MatrixSource& matrix : *stack) {
          const bool bare = matrix.layout == MatrixLayout::kBare && !files.Has(matrix.name);
          if (bare && files.Has(matrix.name + "_blocks")) matrix.layout = MatrixLayout::kMxfp4;
        }
      }
    }
  }
}

/// Marks the matrix as packed where the files hold no plain numbers of it.
void FindPacked(const WeightFiles& files, const PackedFormat& format, MatrixSource& matrix) {
  const bool plain = matrix.layout != MatrixLayout::kWeight || matrix.matrices > 0 || files.Has(WeightName(matrix));
  if (!plain) matrix.packed = PackedAsStored(files, format, matrix.name);
}

void FindPackedMatrices(const DecoderSpec& spec, const WeightFiles& files, WeightSources& sources) {
  if (!sources.packed) return;
  const auto find = [&](StackedSource& stack) {
    for (MatrixSource& matrix : stack) FindPacked(files, *sources.packed, matrix);
  };
  for (LayerSource& layer : sources.layers) {
    for (StackedSource& part : layer.qkv) find(part);
    for (StackedSource* stack : {&layer.out, &layer.gate_up, &layer.down}) find(*stack);
    if (layer.latent) {
      find(layer.latent->queries);
      FindPacked(files, *sources.packed, layer.latent->expand);
    }
    if (!layer.mixture) continue;
    find(layer.mixture->router);
    for (MixtureSource::Expert& expert : layer.mixture->experts) {
      find(expert.gate_up);
      find(expert.down);
    }
  }
  if (!spec.tied_head) FindPacked(files, *sources.packed, sources.head);
}

}  // namespace

void RenameTensors(WeightSources& sources, const std::function<std::string(const std::string&)>& rename) {
  const auto visit = [&](std::string& name) { name = rename(name); };
  ForNames(sources, visit);
  visit(sources.head.name);
}

void NameByFiles(const DecoderSpec& spec, const WeightFiles& files, WeightSources& sources) {
  const auto has = [&](const std::string& name) { return files.Has(name + ".weight"); };
  const std::string own = sources.prefix;
  struct Naming {
    std::string prefix;
    std::string head;  // what stands before the head's name
  };
  // As a part of a larger model, in the names of transformers 4 and 5, and saved without the model around it.
  const std::array<Naming, 3> namings = {
      {{"language_model." + own, "language_model."}, {own + "language_model.", ""}, {"", ""}}};
  const std::string first_norm = sources.final_norm.name;
  if (!has(first_norm) && first_norm.starts_with(own)) {
    for (const Naming& naming : namings) {
      if (!has(naming.prefix + first_norm.substr(own.size()))) continue;
      ForNames(sources, [&](std::string& name) {
        if (name.starts_with(own)) name = naming.prefix + name.substr(own.size());
      });
      sources.head.name = naming.head + sources.head.name;
      break;
    }
  }
  FindPackedExperts(files, sources);
  FindPackedMatrices(spec, files, sources);
  if (!spec.tied_head) return;
  if (!has(sources.head.name)) {
    if (sources.head.bias) sources.head.biased_as = sources.head.name;  // a bias is never tied (Phi)
    sources.head.name = sources.embedding.name;
  } else if (!has(sources.embedding.name)) {
    sources.embedding.name = sources.head.name;
  }
}

}  // namespace runahead
