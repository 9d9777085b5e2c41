#include "model/make_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/json.h"
#include "model/architectures.h"
#include "model/byte_tokenizer.h"
#include "model/presets.h"
#include "model/random_weights.h"
#include "model/weight_list.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr size_t kBlockElements = size_t{1} << 20;  // generated and written at once; a multiple of 4
constexpr double kSpread = 1.28;  // standard deviation of weights times the root of their width: 0.02 at 4096
constexpr double kBiasSpread = 0.02;

/// A tensor to write.
struct MadeTensor {
  std::string name;
  Shape shape;
  double stddev = 0;  // 0: all are `constant`
  float constant = 0;

  [[nodiscard]] size_t bytes() const { return static_cast<size_t>(shape.elements()) * SizeOf(DType::kBF16); }
};

using Shard = std::vector<MadeTensor>;

/// The tensors of a model with their spread: what adds to the residual stream is kept small for its depth, as GPT-2
/// does, so that activations stay within bf16 at any number of layers.
std::vector<MadeTensor> PlanTensors(const ParsedModel& model) {
  const auto& [spec, sources] = model;
  std::map<std::string, double> scales;
  const double residual = 1 / std::sqrt(2.0 * spec.layers);
  for (const LayerSource& layer : sources.layers) {
    for (const MatrixSource& matrix : layer.out) scales[matrix.name + ".weight"] = residual;
    for (const MatrixSource& matrix : layer.down) scales[matrix.name + ".weight"] = residual;
  }
  std::vector<MadeTensor> tensors;
  for (auto& [name, shape] : ListWeights(sources, !spec.tied_head)) {
    double stddev = 0;
    if (shape.rank() == 2) {
      const auto scale = scales.find(name);
      stddev = kSpread / std::sqrt(static_cast<double>(shape[1])) * (scale == scales.end() ? 1 : scale->second);
    } else if (name.ends_with(".bias")) {
      stddev = kBiasSpread;
    }
    tensors.push_back({name, shape, stddev, 1 - spec.norm_offset});
  }
  return tensors;
}

std::vector<Shard> PlanShards(std::vector<MadeTensor> tensors, size_t max_bytes) {
  std::vector<Shard> shards(1);
  size_t bytes = 0;
  for (MadeTensor& tensor : tensors) {
    if (!shards.back().empty() && bytes + tensor.bytes() > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += tensor.bytes();
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

size_t Bytes(const Shard& shard) {
  size_t bytes = 0;
  for (const MadeTensor& tensor : shard) bytes += tensor.bytes();
  return bytes;
}

/// The opening of a safetensors file, padded so that the data starts at a multiple of 8.
std::string Header(const Shard& shard) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t begin = 0;
  for (const MadeTensor& tensor : shard) {
    Json shape = Json::array();
    for (int i = 0; i < tensor.shape.rank(); ++i) shape.push_back(tensor.shape[i]);
    header[tensor.name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {begin, begin + tensor.bytes()}}};
    begin += tensor.bytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>((uint64_t{text.size()} >> (8 * i)) & 0xff);
  return bytes + text;
}

/// Writes the weights of a model, drawing them on the way.
class WeightWriter {
 public:
  WeightWriter(uint64_t seed, size_t total_bytes, const Progress& progress)
      : seed_(seed), total_bytes_(total_bytes), progress_(progress), quantiles_(NormalQuantiles()) {}

  void Write(const std::filesystem::path& path, const Shard& shard) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    const std::string header = Header(shard);
    file.write(header.data(), static_cast<std::streamsize>(header.size()));
    for (const MadeTensor& tensor : shard) {
      WriteTensor(file, tensor);
      if (!file) break;
    }
    file.close();
    if (!file) throw IoError(fmt::format("{}: cannot write: {}", path.string(), std::strerror(errno)));
  }

 private:
  void WriteTensor(std::ofstream& file, const MadeTensor& tensor) {
    // A tensor's numbers depend on the seed and its name alone, whatever shard it is in.
    uint64_t key = Mix(seed_);
    for (const char c : tensor.name) key = Mix(key ^ static_cast<unsigned char>(c));
    const NormalBf16 normal(quantiles_, tensor.stddev);
    const auto elements = static_cast<size_t>(tensor.shape.elements());
    for (size_t first = 0; first < elements && file; first += kBlockElements) {
      block_.assign(std::min(kBlockElements, elements - first), BFloat16(tensor.constant));
      if (tensor.stddev != 0) normal.Fill(key, first, block_);
      file.write(reinterpret_cast<const char*>(block_.data()),
                 static_cast<std::streamsize>(block_.size() * sizeof(BFloat16)));
      written_ += block_.size() * sizeof(BFloat16);
      if (progress_) progress_(static_cast<double>(written_) / static_cast<double>(total_bytes_));
    }
  }

  uint64_t seed_;
  size_t total_bytes_;
  const Progress& progress_;
  std::vector<float> quantiles_;
  std::vector<BFloat16> block_;
  size_t written_ = 0;
};

void WriteWeights(const std::filesystem::path& dir, const std::vector<Shard>& shards, uint64_t seed, size_t bytes,
                  const Progress& progress) {
  WeightWriter writer(seed, bytes, progress);
  if (shards.size() == 1) {
    writer.Write(dir / "model.safetensors", shards[0]);
    return;
  }
  Json weight_map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    writer.Write(dir / name, shards[i]);
    for (const MadeTensor& tensor : shards[i]) weight_map[tensor.name] = name;
  }
  const Json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", weight_map}};
  WriteFile(dir / "model.safetensors.index.json", index.dump(1) + "\n");
}

/// Creates the folder, or takes one that is empty and has room.
void PrepareFolder(const std::filesystem::path& dir, size_t bytes) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error || !std::filesystem::is_directory(dir, error)) {
    throw IoError(fmt::format("{}: cannot create the folder: {}", dir.string(), error.message()));
  }
  const bool empty = std::filesystem::is_empty(dir, error);
  if (error) throw IoError(fmt::format("{}: cannot read the folder: {}", dir.string(), error.message()));
  if (!empty) throw ConfigError(fmt::format("{}: the folder is not empty", dir.string()));
  const std::filesystem::space_info space = std::filesystem::space(dir, error);
  if (!error && space.available < bytes) {
    throw ConfigError(fmt::format("{}: the weights need {:.1f} GB, the disk has {:.1f} GB free", dir.string(),
                                  static_cast<double>(bytes) / 1e9, static_cast<double>(space.available) / 1e9));
  }
}

}  // namespace

std::vector<std::string_view> PresetNames() {
  std::vector<std::string_view> names;
  for (const Preset& preset : Presets()) names.push_back(preset.name);
  return names;
}

void MakeModel(std::string_view preset_name, const std::filesystem::path& dir, uint64_t seed,
               const Progress& progress, size_t max_shard_bytes) {
  const Preset& preset = FindPreset(preset_name);
  const Json config = PresetConfig(preset);
  const JsonObject origin(config, fmt::format("preset {}", preset_name));
  const ParsedModel model = FindArchitecture(origin).parse(origin);
  const std::vector<Shard> shards = PlanShards(PlanTensors(model), max_shard_bytes);
  size_t bytes = 0;
  for (const Shard& shard : shards) bytes += Bytes(shard);

  PrepareFolder(dir, bytes);
  try {
    WriteWeights(dir, shards, seed, bytes, progress);
    WriteFile(dir / "tokenizer.json", ByteTokenizer(model.spec.vocab).dump() + "\n");
    const Json tokenizer_config = {
        {"tokenizer_class", "PreTrainedTokenizerFast"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
    WriteFile(dir / "tokenizer_config.json", tokenizer_config.dump(1) + "\n");
    const Json generation = {{"bos_token_id", kMadeBos}, {"eos_token_id", kMadeEos}};
    WriteFile(dir / "generation_config.json", generation.dump(1) + "\n");
    WriteFile(dir / "config.json", config.dump(1) + "\n");  // last: a folder without it is no model
  } catch (...) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
      std::filesystem::remove(entry.path(), ignored);
    }
    throw;
  }
}

}  // namespace runahead
