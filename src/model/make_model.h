// Models with random weights, of real and of tiny sizes: for measuring speed and for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "model/model_loader.h"

namespace runahead {

/// The names MakeModel knows: "llama-7b", ..., "tiny-llama", ...
std::vector<std::string_view> PresetNames();

/// Most bytes of one safetensors file, unless one tensor is larger.
inline constexpr size_t kMaxShardBytes = 5'000'000'000;

/// Writes a folder as users have them: config.json, generation_config.json, a byte-level tokenizer, and bf16 weights
/// drawn from a normal distribution, in shards of at most `max_shard_bytes`. The same preset and seed give the same
/// bytes. Works in a few MB of memory. Throws ConfigError for an unknown preset, a folder that is not empty or a full
/// disk, IoError when a file cannot be written; then it leaves no file behind.
void MakeModel(std::string_view preset, const std::filesystem::path& dir, uint64_t seed,
               const Progress& progress = {}, size_t max_shard_bytes = kMaxShardBytes);

}  // namespace runahead
