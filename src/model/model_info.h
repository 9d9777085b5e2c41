// What a model's folder holds, told from its headers alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/decoder_spec.h"

namespace runahead {

/// Facts about a model on disk.
struct ModelInfo {
  DecoderSpec spec;
  int64_t parameters = 0;           // elements of the tensors that the model uses; a tied head counts once
  size_t weight_bytes = 0;          // of these tensors, as stored
  std::vector<std::string> dtypes;  // of these tensors, as the files name them: "BF16"
  int files = 0;                    // safetensors files
  size_t kv_bytes_per_token = 0;    // over all layers, in the dtype of the weights
};

/// Reads config.json and the headers of the weights; touches no weight. Throws what LoadDecoder would throw for them.
ModelInfo DescribeModel(const std::filesystem::path& dir);

}  // namespace runahead
