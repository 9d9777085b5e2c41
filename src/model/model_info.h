// What a model's folder holds, told from its headers alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/decoder_spec.h"
#include "model/model_loader.h"

namespace runahead {

/// Facts about tensors on disk.
struct TensorFacts {
  int64_t parameters = 0;           // elements
  size_t bytes = 0;                 // bytes as stored
  std::vector<std::string> dtypes;  // names in the files: "BF16"
  int files = 0;                    // safetensors files
};

/// Facts about a model on disk.
struct ModelInfo {
  DecoderSpec spec;
  TensorFacts weights;               // tensors that the model uses; a tied head counts once
  int64_t active_parameters = 0;     // of them, those that one token meets: all, but for experts not chosen
  std::string packed;                // how matrices are packed: "awq, 4 bits, groups of 128"; empty: they are not
  std::vector<std::string> ignored;  // tensors of the files that it does not use
};

/// Reads the headers of the weights; touches no weight. Throws what LoadDecoder would throw for them.
ModelInfo DescribeModel(const ModelConfig& config);

/// All tensors of a folder, of whatever model.
TensorFacts DescribeTensors(const std::filesystem::path& dir);

}  // namespace runahead
