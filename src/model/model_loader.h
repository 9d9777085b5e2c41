// From a Hugging Face folder to a decoder.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "model/decoder.h"
#include "model/decoder_spec.h"

namespace runahead {

/// Reads DIR/config.json. Throws ConfigError naming the file, the field and the value for an unknown architecture or
/// an unsupported option.
DecoderSpec LoadSpec(const std::filesystem::path& dir);

/// Loads the weights of DIR (model.safetensors, or the shards of model.safetensors.index.json) and packs them for
/// `ops`, whose memory must outlive the decoder. Mapped files stay mapped as long as the decoder lives.
std::shared_ptr<const Decoder> LoadDecoder(const std::filesystem::path& dir, DType compute, Ops& ops);

}  // namespace runahead
