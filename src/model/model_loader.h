// From a Hugging Face folder, or a GGUF file, to a decoder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/json.h"
#include "model/architectures.h"
#include "model/decoder.h"
#include "model/decoder_spec.h"
#include "runahead/model.h"

namespace runahead {

/// The tokens that open and end a text.
struct GenerationDefaults {
  std::vector<int32_t> eos;  // any of these ends the text
  std::optional<int32_t> bos;
};

/// DIR/config.json of whatever model, or what it would be for a GGUF file. Throws ConfigError, and IoError for what
/// is no model's folder.
Json ReadModelJson(const std::filesystem::path& dir);

/// A model's folder and what its config.json says, which is read once: whoever needs it is given this. A value type.
class ModelConfig {
 public:
  /// Reads DIR/config.json: the shape of the model and where its weights are. Throws ConfigError naming the file, the
  /// field and the value for an unknown architecture or an unsupported option.
  ModelConfig(std::filesystem::path dir);  // NOLINT(google-explicit-constructor): a folder stands for what it holds
  /// The same from what ReadModelJson gave.
  ModelConfig(std::filesystem::path dir, Json json);

  [[nodiscard]] const std::filesystem::path& dir() const { return dir_; }
  [[nodiscard]] const DecoderSpec& spec() const { return model_.spec; }
  [[nodiscard]] const WeightSources& sources() const { return model_.sources; }

  /// The same with another longest sequence. Throws what Model::WithContext throws.
  [[nodiscard]] ModelConfig WithContext(int64_t tokens) const;

  /// The dtype that the weights are meant to have: config.json's, or where that is "auto" the one that the embedding
  /// is stored in, f32 for FP8. Throws what WeightFiles throws.
  [[nodiscard]] DType WeightDType() const;

  /// Reads DIR/generation_config.json where it exists; what it does not say comes from config.json. Throws
  /// ConfigError naming file, field and value.
  [[nodiscard]] GenerationDefaults Defaults() const;

 private:
  std::filesystem::path dir_;
  Json json_;
  ParsedModel model_;
};

/// What the library's own code reads in `model`, which keeps it alive.
const ModelConfig& ConfigOf(const Model& model);

/// Told the share of the work done, from 0 to 1, now and then.
using Progress = std::function<void(double)>;

/// Loads the weights of the folder (model.safetensors, or the shards of model.safetensors.index.json) or of the GGUF
/// file and packs them for `ops`, whose memory must outlive the decoder. All tensors are checked before the first is
/// packed: throws ConfigError or IoError naming file, tensor, expected and got, or the memory that is missing. Mapped
/// files stay mapped as long as the decoder lives. The layers' matrices come in `format`, the head in HeadFormat of
/// it; the embedding stays as it is stored.
std::shared_ptr<const Decoder> LoadDecoder(const ModelConfig& config, DType compute, Ops& ops,
                                           const Progress& progress = {},
                                           WeightFormat format = WeightFormat::kStored);

}  // namespace runahead
