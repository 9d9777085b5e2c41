// The tensors of a GGUF file.
#pragma once

#include <filesystem>

#include "base/gguf_file.h"
#include "model/safetensors.h"

namespace runahead::gguf {

/// A GGUF file as what holds weights. Shapes are written as everywhere else, rows first.
class GgufWeights : public WeightFile {
 public:
  /// Maps the file and checks each tensor of a known type: whole blocks, all inside the file. Throws what GgufFile
  /// throws, IoError when the file ends too early, ConfigError naming tensor and value otherwise.
  explicit GgufWeights(const std::filesystem::path& path);

 private:
  GgufWeights(const std::filesystem::path& path, GgufFile file);
};

}  // namespace runahead::gguf
