// From a Hugging Face folder to a decoder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "model/architectures.h"
#include "model/decoder.h"
#include "model/decoder_spec.h"

namespace runahead {

/// Reads DIR/config.json: the shape of the model and where its weights are. Throws ConfigError naming the file, the
/// field and the value for an unknown architecture or an unsupported option.
ParsedModel LoadConfig(const std::filesystem::path& dir);

/// The shape alone.
DecoderSpec LoadSpec(const std::filesystem::path& dir);

/// The tokens that open and end a text.
struct GenerationDefaults {
  std::vector<int32_t> eos;  // any of these ends the text
  std::optional<int32_t> bos;
};

/// Reads DIR/generation_config.json where it exists; what it does not say comes from DIR/config.json. Throws
/// ConfigError naming file, field and value.
GenerationDefaults LoadGenerationDefaults(const std::filesystem::path& dir);

/// Told the share of the work done, from 0 to 1, now and then.
using Progress = std::function<void(double)>;

/// Loads the weights of DIR (model.safetensors, or the shards of model.safetensors.index.json) and packs them for
/// `ops`, whose memory must outlive the decoder. All tensors are checked before the first is packed: throws
/// ConfigError or IoError naming file, tensor, expected and got, or the memory that is missing. Mapped files stay
/// mapped as long as the decoder lives.
std::shared_ptr<const Decoder> LoadDecoder(const std::filesystem::path& dir, DType compute, Ops& ops,
                                           const Progress& progress = {});

}  // namespace runahead
