#include "model/model_loader.h"

#include <fmt/format.h>

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/gguf_file.h"
#include "base/json.h"
#include "base/model_folder.h"
#include "model/architectures.h"
#include "model/gguf_config.h"
#include "model/safetensors.h"
#include "model/weight_list.h"
#include "model/weight_reader.h"
#include "runahead/error.h"
#include "tensor/memory_plan.h"

namespace runahead {
namespace {

/// Loads the weights of one model into the memory of `ops`.
class Loader {
 public:
  Loader(const ModelConfig& config, DType compute, WeightFormat format, Ops& ops, const Progress& progress)
      : dir_(config.dir()),
        spec_(config.spec()),
        sources_(config.sources()),
        files_(std::make_shared<WeightFiles>(dir_)),
        reader_(*files_, sources_.scale_block),
        compute_(compute),
        format_(format),
        ops_(ops),
        stream_(ops.device().NewStream()),
        progress_(progress) {
    NameByFiles(spec_, *files_, sources_);
  }

  DecoderWeights Load() {
    CheckFiles();
    CheckMemory();
    DecoderWeights weights;
    weights.files = files_;
    weights.format = format_;
    weights.embedding = LoadEmbedding();
    if (sources_.positions) weights.positions = LoadPositions(*sources_.positions);
    weights.embedding_norm = LoadNorm(sources_.embedding_norm);
    Report(0);
    for (const LayerSource& source : sources_.layers) {
      weights.layers.push_back(LoadLayer(source));
      Report(weights.layers.size());
    }
    weights.final_norm = LoadNorm(sources_.final_norm, spec_.final_norm_scale);
    weights.head = Pack({{sources_.head}}, HeadFormat(format_));
    Report(weights.layers.size() + 1);
    return weights;
  }

 private:
  void Report(size_t steps_done) const {
    if (progress_) progress_(static_cast<double>(steps_done) / static_cast<double>(sources_.layers.size() + 1));
  }

  void CheckFiles() const {
    for (const NamedShape& tensor : ListWeights(sources_)) {
      (void)files_->Find(tensor);
    }
  }

  /// What becomes a copy on the device: vectors, matrices that it does not read where they are, and the embedding
  /// only where it has its own memory or the file does not align it.
  void CheckMemory() const {
    size_t layers = 0;
    for (const LayerSource& layer : sources_.layers) {
      for (const StackedSource& part : layer.qkv) layers += PreparedBytes(part, format_);
      for (const StackedSource& part : {layer.out, layer.gate_up, layer.down}) layers += PreparedBytes(part, format_);
      if (layer.latent) layers += PreparedBytes(*layer.latent);
      if (layer.mixture) layers += PreparedBytes(*layer.mixture);
    }
    size_t vectors = 0;
    for (const NamedShape& tensor : ListWeights(sources_)) {
      if (tensor.shape.rank() == 1) vectors += static_cast<size_t>(tensor.shape.elements()) * sizeof(float);
    }
    MemoryPlan plan;
    const bool stored = format_ == WeightFormat::kStored;
    plan.Add(fmt::format("layers in {}", stored ? Name(compute_) : Name(format_)), layers + vectors);
    plan.Add("output head", PreparedBytes({sources_.head}, HeadFormat(format_)));
    if (!ops_.device().is_host() || !reader_.IsAsStored(sources_.embedding)) plan.Add("embedding", EmbeddingBytes());
    if (sources_.positions) {
      const auto elements = static_cast<size_t>(sources_.positions->rows * spec_.hidden);
      plan.Add("positions", elements * SizeOf(compute_));
    }
    plan.CheckFits(fmt::format("{}: the model", dir_.string()), ops_.device());
  }

  size_t PreparedBytes(const MixtureSource& mixture) const {
    size_t all = PreparedBytes(mixture.router, WeightFormat::kStored);
    for (const MixtureSource::Expert& expert : mixture.experts) {
      all += PreparedBytes(expert.gate_up, format_) + PreparedBytes(expert.down, format_);
    }
    return all;
  }

  size_t PreparedBytes(const LatentSource& latent) const {
    const auto maps = static_cast<size_t>(latent.expand.rows * latent.expand.columns);
    return PreparedBytes(latent.queries, format_) + maps * SizeOf(ops_.WeightDType(compute_));
  }

  /// A part is copied as a whole, or not at all.
  size_t PreparedBytes(const StackedSource& part, WeightFormat format) const {
    size_t all = 0;
    bool copied = false;
    for (const MatrixSource& matrix : part) {
      const Shape block{matrix.end - matrix.begin, matrix.columns};
      if (FormatFor(format, matrix.columns) != WeightFormat::kStored) {
        copied = true;
        all += static_cast<size_t>(matrix.blocks * block[0]) * QuantisedRowBytes(format, matrix.columns);
        continue;
      }
      copied = copied || !reader_.IsAsStored(matrix) || !ops_.LeavesInPlace(block, StoredDTypeOf(matrix), compute_);
      all += static_cast<size_t>(matrix.blocks * block.elements()) * SizeOf(ops_.WeightDType(compute_));
    }
    return copied ? all : 0;
  }

  DType StoredDTypeOf(const MatrixSource& matrix) const {
    return *StoredDType(files_->Find(WeightName(matrix), StoredShape(matrix)).tensor->dtype);
  }

  /// What an element of the embedding has for a dtype where it does not stay in its file. A file's dtype that nothing
  /// computes with becomes the compute dtype, which the rows of a batch have anyway; scaled ones are rounded once.
  DType EmbeddingDType() const {
    const MatrixSource& source = sources_.embedding;
    const StoredTensor& table = *files_->Find(WeightName(source), StoredShape(source)).tensor;
    const std::optional<DType> stored = StoredDType(table.dtype);
    if (stored) return *stored;
    return spec_.embedding_scale == 1 ? compute_ : DType::kF32;
  }
  size_t EmbeddingBytes() const {
    return static_cast<size_t>(sources_.embedding.rows * sources_.embedding.columns) * SizeOf(EmbeddingDType());
  }

  Tensor LoadEmbedding() {
    const HostTensor host = reader_.Matrix(sources_.embedding);
    if (host.copy.empty()) return ops_.Upload(host.view);
    return CopyToDevice(host.view, EmbeddingDType());
  }

  /// The positions that the model has, in the compute dtype.
  Tensor LoadPositions(const MatrixSource& source) {
    const HostTensor host = reader_.Matrix(source);
    return CopyToDevice(host.view.Rows(source.begin, source.end), compute_);
  }

  Tensor CopyToDevice(TensorView host, DType dtype) {
    if (host.dtype() == dtype) return CopyToDevice(host);
    std::vector<std::byte> memory(static_cast<size_t>(host.shape().elements()) * SizeOf(dtype));
    const TensorView converted(memory.data(), dtype, host.shape());
    Dispatch(host.dtype(), [&](auto from_zero) {
      Dispatch(dtype, [&](auto to_zero) {
        const auto* from = host.As<decltype(from_zero)>();
        auto* to = converted.As<decltype(to_zero)>();
        for (int64_t i = 0; i < host.shape().elements(); ++i) to[i] = decltype(to_zero)(static_cast<float>(from[i]));
      });
    });
    return CopyToDevice(converted);
  }

  /// A device's own copy of a host tensor that will not stay.
  Tensor CopyToDevice(TensorView host) {
    Tensor tensor;
    tensor.memory = ops_.device().Allocate(host.bytes());
    tensor.view = tensor.memory.View(host.dtype(), host.shape());
    ops_.device().CopyFromHost(tensor.view.data(), host.data(), host.bytes(), *stream_);
    stream_->Synchronize();
    return tensor;
  }

  void AppendFloats(const std::string& name, const Shape& shape, std::vector<float>& values) const {
    const HostTensor host = reader_.Read(name, shape);
    Dispatch(host.view.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* from = host.view.As<T>();
      for (int64_t i = 0; i < host.view.shape().elements(); ++i) values.push_back(static_cast<float>(from[i]));
    });
  }

  Tensor LoadVector(const VectorSource& source) {
    std::vector<float> values;
    AppendFloats(source.name, {source.elements}, values);
    return CopyToDevice({values.data(), DType::kF32, {source.elements}});
  }

  /// The vectors `suffix` of a norm in f32, with `offset` added, times `scale`.
  Tensor LoadVector(const NormSource& source, const char* suffix, float offset, float scale) {
    std::vector<float> stored;
    for (const std::string& name : NormNames(source)) AppendFloats(name + suffix, NormShape(source), stored);
    std::vector<float> values;
    if (source.paired.rotary_dim == 0) {
      values = stored;
    } else {
      for (const int64_t row : PairedOrder(source.paired, source.features)) {
        values.push_back(stored[static_cast<size_t>(row)]);
      }
    }
    for (float& value : values) value = (value + offset) * scale;
    return CopyToDevice({values.data(), DType::kF32, {source.features}});
  }

  Norm LoadNorm(const NormSource& source, float scale = 1) {
    Norm norm{.kind = spec_.norm,
              .epsilon = source.epsilon > 0 ? source.epsilon : spec_.norm_epsilon,
              .weight = {},
              .bias = {}};
    norm.weight = LoadVector(source, ".weight", spec_.norm_offset, scale);
    if (source.bias) norm.bias = LoadVector(source, ".bias", 0, scale);
    return norm;
  }

  std::optional<Norm> LoadNorm(const std::optional<NormSource>& source) {
    return source ? std::optional(LoadNorm(*source)) : std::nullopt;
  }

  using HostTensors = std::map<std::string, HostTensor>;  // by name

  std::unique_ptr<Linear> Pack(const std::vector<StackedSource>& parts) { return Pack(parts, format_); }
  std::unique_ptr<Linear> Pack(const std::vector<StackedSource>& parts, WeightFormat format) {
    HostTensors hosts;
    return Pack(parts, format, hosts);
  }

  /// Reads into `hosts` what is not there yet: fused tensors give many parts.
  std::unique_ptr<Linear> Pack(const std::vector<StackedSource>& parts, WeightFormat format, HostTensors& hosts) {
    const auto take = [&](const std::string& name, const MatrixSource& rows, const auto& read,
                          std::vector<TensorView>& views) -> const HostTensor& {
      auto host = hosts.find(name);
      if (host == hosts.end()) host = hosts.emplace(name, read()).first;
      for (int64_t block = 0; block < rows.blocks; ++block) {
        const int64_t first = block * rows.stride;
        views.push_back(host->second.view.Rows(first + rows.begin, first + rows.end));
      }
      return host->second;
    };
    std::vector<LinearPart> prepared;
    for (const StackedSource& part : parts) {
      LinearPart& linear = prepared.emplace_back();
      linear.lasting = true;
      for (const MatrixSource& matrix : part) {
        MatrixSource rows = matrix;  // of what the reader gives
        if (matrix.layout != MatrixLayout::kWeight) rows.begin = 0;
        rows.end = matrix.end - matrix.begin + rows.begin;
        const HostTensor& host = take(
            WeightName(matrix), rows, [&] { return reader_.Matrix(matrix); }, linear.weights);
        AddScales(host, rows, linear.scales);
        linear.names.resize(linear.weights.size(), WeightName(matrix));
        linear.lasting = linear.lasting && hosts.at(WeightName(matrix)).copy.empty();
        if (!matrix.bias) continue;
        take(
            BiasName(matrix), rows, [&] { return reader_.Bias(matrix); }, linear.biases);
      }
      CHECK(linear.biases.empty() || linear.biases.size() == linear.weights.size());
    }
    return ops_.Prepare(prepared, compute_, format);
  }

  /// The scales of the rows that a part takes of `host`.
  static void AddScales(const HostTensor& host, const MatrixSource& rows,
                        std::vector<std::span<const float>>& scales) {
    for (int64_t block = 0; block < rows.blocks; ++block) {
      const auto first = static_cast<size_t>(block * rows.stride + rows.begin);
      const auto count = static_cast<size_t>(rows.end - rows.begin);
      scales.push_back(host.scales.empty() ? std::span<const float>() : std::span(host.scales).subspan(first, count));
    }
  }

  MixtureWeights LoadMixture(const MixtureSource& source) {
    MixtureWeights mixture;
    mixture.router = Pack({source.router}, WeightFormat::kStored);
    HostTensors fused;  // tensors of all experts
    const auto pack = [&](const StackedSource& matrices) {
      const MatrixSource& first = matrices.front();
      const bool shared = first.matrices > 0 && first.layout == MatrixLayout::kWeight;
      return shared ? Pack({matrices}, format_, fused) : Pack({matrices});
    };
    for (const MixtureSource::Expert& expert : source.experts) {
      mixture.experts.push_back({pack(expert.gate_up), pack(expert.down)});
    }
    if (source.choice_bias) mixture.choice_bias = LoadVector(*source.choice_bias);
    return mixture;
  }

  /// The maps stay as they are stored: of all matrices they are the smallest.
  LatentWeights LoadLatent(const LatentSource& source) {
    LatentWeights latent;
    if (!source.queries.empty()) latent.queries = Pack({source.queries});
    const HostTensor maps = reader_.Matrix(source.expand);
    std::vector<HostTensor> transposed;
    std::vector<LinearPart> keys;
    std::vector<LinearPart> values;
    const auto part_of = [&](TensorView map) {
      LinearPart part;
      part.weights = {map};
      part.names = {WeightName(source.expand)};
      return part;
    };
    const int64_t rows = spec_.latent.plain_dim + spec_.latent.value_dim;
    for (int64_t first = 0; first < maps.view.rows(); first += rows) {
      const int64_t middle = first + spec_.latent.plain_dim;
      transposed.push_back(Transposed(maps.view.Rows(first, middle)));
      keys.push_back(part_of(transposed.back().view));
      values.push_back(part_of(maps.view.Rows(middle, first + rows)));
    }
    latent.keys = ops_.Prepare(keys, compute_, WeightFormat::kStored);
    latent.values = ops_.Prepare(values, compute_, WeightFormat::kStored);
    return latent;
  }

  LayerWeights LoadLayer(const LayerSource& source) {
    LayerWeights layer;
    layer.attention_norm = LoadNorm(source.attention_norm);
    layer.qkv = Pack(source.qkv);
    layer.q_norm = LoadNorm(source.q_norm);
    layer.k_norm = LoadNorm(source.k_norm);
    if (source.sinks) layer.sinks = LoadVector(*source.sinks);
    if (source.latent) layer.latent = LoadLatent(*source.latent);
    layer.out = Pack({source.out});
    layer.post_attention_norm = LoadNorm(source.post_attention_norm);
    layer.mlp_norm = LoadNorm(source.mlp_norm);
    if (source.mixture) {
      layer.mixture = LoadMixture(*source.mixture);
    } else {
      layer.gate_up = Pack({source.gate_up});
      layer.down = Pack({source.down});
    }
    layer.post_mlp_norm = LoadNorm(source.post_mlp_norm);
    return layer;
  }

  std::filesystem::path dir_;
  const DecoderSpec& spec_;
  WeightSources sources_;
  std::shared_ptr<const WeightFiles> files_;
  WeightReader reader_;
  DType compute_;
  WeightFormat format_;
  Ops& ops_;
  std::unique_ptr<Stream> stream_;
  const Progress& progress_;
};

/// Whether config.json, or its part on text, says "auto" of the weights' dtype.
bool LeavesDTypeToFiles(const JsonObject& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (config.Has(key)) return config.String(key) == "auto";
  }
  return config.Has("text_config") && LeavesDTypeToFiles(config.Object("text_config"));
}

/// A token id, or a list of them.
std::vector<int32_t> TokenIds(const JsonObject& config, const char* key) {
  constexpr size_t kMaxIds = 64;
  if (!config.Has(key)) return {};
  const Json& field = config.At(key);
  if (!field.is_array()) return {static_cast<int32_t>(config.Int(key, 0, INT32_MAX))};
  std::vector<int32_t> ids;
  for (const Json& id : field) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX || field.size() > kMaxIds) {
      config.Refuse(key, fmt::format("expected a token id or a list of at most {}", kMaxIds));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace

Json ReadModelJson(const std::filesystem::path& dir) {
  if (IsGgufPath(dir)) return gguf::ConfigJson(GgufFile(dir));
  CheckModelFolder(dir);
  return LoadJson(dir / "config.json");
}

ModelConfig::ModelConfig(std::filesystem::path dir) : ModelConfig(dir, ReadModelJson(dir)) {}

ModelConfig::ModelConfig(std::filesystem::path dir, Json json) : dir_(std::move(dir)), json_(std::move(json)) {
  const bool gguf = IsGgufPath(dir_);
  const JsonObject config(json_, (gguf ? dir_ : dir_ / "config.json").string());
  model_ = FindArchitecture(config).parse(config);
  model_.sources.scale_block = ScaleBlockOfWeights(config);
  model_.sources.packed = PackedFormatOfWeights(config);
  if (gguf) gguf::Adapt(GgufFile(dir_), WeightFiles(dir_), model_);
}

DType ModelConfig::WeightDType() const {
  const JsonObject config(json_, (dir_ / "config.json").string());
  if (!LeavesDTypeToFiles(config)) return spec().weights;
  const WeightFiles files(dir_);
  WeightSources named = sources();
  NameByFiles(spec(), files, named);
  const WeightFiles::Place place = files.Find(WeightName(named.embedding), StoredShape(named.embedding));
  return StoredDType(place.tensor->dtype).value_or(DType::kF32);
}

ModelConfig ModelConfig::WithContext(int64_t tokens) const {
  const int64_t learned = spec().learned_positions;
  const int64_t most = learned > 0 ? learned : INT32_MAX;
  if (tokens < 1 || tokens > most) {
    throw ConfigError(fmt::format("{}: context: expected 1 to {} tokens{}, got {}", dir_.string(), most,
                                  learned > 0 ? ", as many as the model has learned positions" : "", tokens));
  }
  ModelConfig other = *this;
  other.model_.spec.max_positions = tokens;
  return other;
}

Model::Model(std::shared_ptr<const ModelConfig> config) : config_(std::move(config)) {}

Model Model::WithContext(int64_t tokens) const {
  return tokens == 0 ? *this : Model(std::make_shared<const ModelConfig>(config_->WithContext(tokens)));
}

Model::Model(const std::filesystem::path& dir) : config_(std::make_shared<const ModelConfig>(dir)) {}

const std::filesystem::path& Model::dir() const { return config_->dir(); }
int64_t Model::vocab() const { return config_->spec().vocab; }
int64_t Model::max_positions() const { return config_->spec().max_positions; }

const ModelConfig& ConfigOf(const Model& model) { return *model.config_; }

GenerationDefaults ModelConfig::Defaults() const {
  GenerationDefaults defaults;
  const auto add = [&](const Json& json, const char* name) {
    const JsonObject config(json, (IsGgufPath(dir_) ? dir_ : dir_ / name).string());
    if (defaults.eos.empty()) defaults.eos = TokenIds(config, "eos_token_id");
    const std::vector<int32_t> bos = TokenIds(config, "bos_token_id");
    if (!defaults.bos && !bos.empty()) defaults.bos = bos[0];
  };
  constexpr const char* kGeneration = "generation_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(dir_ / kGeneration, ignored)) add(LoadJson(dir_ / kGeneration), kGeneration);
  add(json_, "config.json");
  return defaults;
}

namespace {

/// Throws ConfigError naming what the device of `ops` cannot do.
void CheckAbilities(const ModelConfig& config, Ops& ops, WeightFormat format) {
  const DecoderSpec& spec = config.spec();
  const Abilities abilities = ops.abilities();
  const auto refuse = [&](const std::string& what) {
    throw ConfigError(fmt::format("{}: {} has {}", config.dir().string(), spec.architecture, what));
  };
  constexpr std::string_view kOnCpus = "which CPUs alone have; expected devices of cpu";
  if (spec.latent.rank > abilities.widest_latent) {
    refuse(abilities.widest_latent == 0
               ? fmt::format("multi-head latent attention, {}", kOnCpus)
               : fmt::format("latent vectors of {} features; expected at most {} on {}", spec.latent.rank,
                             abilities.widest_latent, ops.device().name()));
  }
  if (spec.sinks && !abilities.sinks) refuse(fmt::format("attention sinks, {}", kOnCpus));
  if (spec.mixture.clamped.limit > 0 && !abilities.clamped_gates) {
    refuse(fmt::format("experts with clamped gates, {}", kOnCpus));
  }
  if (spec.mixture.experts > abilities.most_experts) {
    refuse(fmt::format("{} experts to choose from; expected at most {} on {}", spec.mixture.experts,
                       abilities.most_experts, ops.device().name()));
  }
  if (spec.mixture.experts > 0 && format == WeightFormat::kFp8) {
    refuse("experts, which are not multiplied in --weights fp8; expected stored");
  }
}

}  // namespace

std::shared_ptr<const Decoder> LoadDecoder(const ModelConfig& config, DType compute, Ops& ops,
                                           const Progress& progress, WeightFormat format) {
  CheckAbilities(config, ops, format);
  DecoderWeights weights = Loader(config, compute, format, ops, progress).Load();
  return std::make_shared<const Decoder>(config.spec(), compute, std::move(weights));
}

}  // namespace runahead
