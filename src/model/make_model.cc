#include "model/make_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "base/json.h"
#include "base/output_file.h"
#include "model/architectures.h"
#include "model/byte_tokenizer.h"
#include "model/presets.h"
#include "model/random_weights.h"
#include "model/weight_list.h"
#include "model/weight_reader.h"
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
  const DecoderSpec& spec = model.spec;
  WeightSources sources = model.sources;
  if (spec.tied_head) sources.head.name = sources.embedding.name;
  std::map<std::string, double> scales;
  const double residual = 1 / std::sqrt(2.0 * spec.layers);
  for (const LayerSource& layer : sources.layers) {
    for (const MatrixSource& matrix : layer.out) scales[WeightName(matrix)] = residual;
    for (const MatrixSource& matrix : layer.down) scales[WeightName(matrix)] = residual;
    if (!layer.mixture) continue;
    for (const MixtureSource::Expert& expert : layer.mixture->experts) {
      for (const MatrixSource& matrix : expert.down) scales[WeightName(matrix)] = residual;
    }
  }
  std::vector<MadeTensor> tensors;
  for (auto& [name, shape, dtype, parameters] : ListWeights(sources)) {
    double stddev = 0;
    if (shape.rank() >= 2) {
      const auto scale = scales.find(name);
      stddev = kSpread / std::sqrt(static_cast<double>(shape[shape.rank() - 1])) *
               (scale == scales.end() ? 1 : scale->second);
    } else if (name.ends_with("bias") || name.ends_with("sinks")) {
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

/// The opening of a safetensors file, padded with spaces so that the data starts where a line of a cache does: rows
/// that begin in the middle of one cost a decoded token more.
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
  constexpr size_t kLine = 64;   // bytes
  constexpr size_t kLength = 8;  // bytes of the number that states the length of the text
  text.resize((kLength + text.size() + kLine - 1) / kLine * kLine - kLength, ' ');
  std::string bytes;
  for (size_t i = 0; i < kLength; ++i) bytes += static_cast<char>((uint64_t{text.size()} >> (8 * i)) & 0xff);
  return bytes + text;
}

/// Writes the weights of a model, drawing them on the way.
class WeightWriter {
 public:
  WeightWriter(uint64_t seed, size_t total_bytes, const Progress& progress)
      : seed_(seed), total_bytes_(total_bytes), progress_(progress), quantiles_(NormalQuantiles()) {}

  void Write(OutputFile& file, const Shard& shard) {
    file.Append(Header(shard));
    for (const MadeTensor& tensor : shard) WriteTensor(file, tensor);
  }

 private:
  void WriteTensor(OutputFile& file, const MadeTensor& tensor) {
    // A tensor's numbers depend on the seed and its name alone, whatever shard it is in.
    uint64_t key = Mix(seed_);
    for (const char c : tensor.name) key = Mix(key ^ static_cast<unsigned char>(c));
    const NormalBf16 normal(quantiles_, tensor.stddev);
    const auto elements = static_cast<size_t>(tensor.shape.elements());
    for (size_t first = 0; first < elements; first += kBlockElements) {
      block_.assign(std::min(kBlockElements, elements - first), BFloat16(tensor.constant));
      if (tensor.stddev != 0) normal.Fill(key, first, block_);
      file.Append({reinterpret_cast<const char*>(block_.data()), block_.size() * sizeof(BFloat16)});
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

/// The files of one folder, which appear together at the end: until then an interrupted run leaves nothing.
class FolderWriter {
 public:
  explicit FolderWriter(std::filesystem::path dir) : dir_(std::move(dir)) {}

  OutputFile& New(const std::string& name) { return files_.emplace_back(dir_ / name); }
  void Add(const std::string& name, const Json& json, int indent) { New(name).Append(json.dump(indent) + "\n"); }
  /// In the order in which they were added.
  void Commit() {
    for (OutputFile& file : files_) file.Commit();
  }

 private:
  std::filesystem::path dir_;
  std::deque<OutputFile> files_;
};

void WriteWeights(FolderWriter& folder, const std::vector<Shard>& shards, uint64_t seed, size_t bytes,
                  const Progress& progress) {
  WeightWriter writer(seed, bytes, progress);
  if (shards.size() == 1) {
    writer.Write(folder.New("model.safetensors"), shards[0]);
    return;
  }
  Json weight_map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    writer.Write(folder.New(name), shards[i]);
    for (const MadeTensor& tensor : shards[i]) weight_map[tensor.name] = name;
  }
  folder.Add("model.safetensors.index.json", {{"metadata", {{"total_size", bytes}}}, {"weight_map", weight_map}}, 1);
}

/// The innermost first; those that hold something stay.
void RemoveFolders(const std::vector<std::filesystem::path>& folders) {
  std::error_code ignored;
  for (size_t i = folders.size(); i > 0; --i) std::filesystem::remove(folders[i - 1], ignored);
}

/// What a run that was killed has left where the file system has no files without names.
void RemovePartialFiles(const std::filesystem::path& dir) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
    if (IsPartialFile(entry.path().filename().string())) std::filesystem::remove(entry.path(), ignored);
  }
}

/// Creates the folder, or takes one that is empty and has room. Returns the folders that were made, the outermost
/// first.
std::vector<std::filesystem::path> PrepareFolder(const std::filesystem::path& dir, size_t bytes) {
  std::error_code error;
  std::vector<std::filesystem::path> made;
  for (std::filesystem::path here = dir; !here.empty() && !std::filesystem::exists(here, error);
       here = here.parent_path()) {
    if (here.has_filename()) made.insert(made.begin(), here);
    if (here == here.parent_path()) break;
  }
  std::filesystem::create_directories(dir, error);
  if (error || !std::filesystem::is_directory(dir, error)) {
    throw IoError(fmt::format("{}: cannot create the folder: {}", dir.string(),
                              error ? error.message() : "something else has its name"));
  }
  RemovePartialFiles(dir);
  const bool empty = std::filesystem::is_empty(dir, error);
  if (error) throw IoError(fmt::format("{}: cannot read the folder: {}", dir.string(), error.message()));
  if (!empty) throw ConfigError(fmt::format("{}: the folder is not empty", dir.string()));
  const std::filesystem::space_info space = std::filesystem::space(dir, error);
  if (!error && space.available < bytes) {
    RemoveFolders(made);
    throw ConfigError(
        fmt::format("{}: the weights need {} bytes, the disk has {} free", dir.string(), bytes, space.available));
  }
  return made;
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

  const std::vector<std::filesystem::path> made = PrepareFolder(dir, bytes);
  try {
    FolderWriter folder(dir);
    WriteWeights(folder, shards, seed, bytes, progress);
    folder.Add("tokenizer.json", ByteTokenizer(model.spec.vocab), -1);
    folder.Add("tokenizer_config.json",
               {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}}, 1);
    folder.Add("generation_config.json", {{"bos_token_id", kMadeBos}, {"eos_token_id", kMadeEos}}, 1);
    folder.Add("config.json", config, 1);  // last: a folder without it is no model
    folder.Commit();
  } catch (...) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
      std::filesystem::remove(entry.path(), ignored);
    }
    RemoveFolders(made);
    throw;
  }
}

}  // namespace runahead
