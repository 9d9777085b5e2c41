// Helpers of the model tests: a decoder with all it needs to run, and files in a folder that goes away.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/source_dir.h"
#include "model/decoder.h"
#include "model/model_loader.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead {

enum class Backend : unsigned char { kScalar, kCpu };

inline std::string BackendName(Backend backend) { return backend == Backend::kScalar ? "Scalar" : "Cpu"; }

/// One rank that runs a model, with a cache of `capacity` tokens.
class Runner {
 public:
  Runner(const std::filesystem::path& dir, Backend backend, int64_t capacity, DType compute = DType::kF32)
      : device_(MakeCpuDevice()),
        ops_(backend == Backend::kScalar ? MakeScalarOps(*device_) : MakeCpuOps(*device_, 2)),
        decoder_(LoadDecoder(dir, compute, *ops_)),
        tables_{decoder_->MakePositions(*ops_, capacity, false), decoder_->MakePositions(*ops_, capacity, true)},
        cache_(*device_, decoder_->spec().kv_shape(compute), capacity),
        workspace_(*device_, decoder_->spec(), compute, capacity),
        stream_(device_->NewStream()) {}

  [[nodiscard]] const Decoder& decoder() const { return *decoder_; }
  [[nodiscard]] KvCache& cache() { return cache_; }

  Status Forward(std::span<const int32_t> tokens, int64_t begin, LastLayer last_layer, Exchange& exchange) {
    const bool is_long = decoder_->spec().rope.IsLong(begin + std::ssize(tokens));
    const Chunk chunk{.tokens = tokens,
                      .begin = begin,
                      .last_layer = last_layer,
                      .tables = &tables_[is_long ? 1 : 0],
                      .cache = cache_,
                      .exchange = &exchange};
    return decoder_->Forward(chunk, workspace_, *ops_, *stream_);
  }

  /// The logits after `tokens`, which sit at [begin, begin + n).
  std::vector<float> Logits(std::span<const int32_t> tokens, int64_t begin = 0) {
    NoExchange exchange;
    CHECK(Forward(tokens, begin, LastLayer::kLastRow, exchange).ok());
    stream_->Synchronize();
    const auto* logits = workspace_.Logits(1).As<float>();
    return {logits, logits + decoder_->spec().vocab};
  }

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  std::shared_ptr<const Decoder> decoder_;
  PositionTables tables_[2];  // tables of short and of long sequences
  KvCache cache_;
  Workspace workspace_;
  std::unique_ptr<Stream> stream_;
};

inline int32_t ArgMax(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// The largest difference, as a share of the largest |expected|.
inline double RelativeError(const std::vector<float>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size()) return INFINITY;
  double largest = 0;
  double difference = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    const double here = std::abs(static_cast<double>(got[i]) - expected[i]);
    difference = here <= difference ? difference : here;  // a NaN wins
  }
  return difference / largest;
}

inline std::filesystem::path GoldenFolder() {
  return std::filesystem::path(SourceDir()) / "tests" / "model" / "goldens";
}

/// A fresh folder that is removed with its content.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "runahead-test-XXXXXX").string();
    CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// What `function` says when it refuses, or nothing when it does not.
template <typename Function>
std::optional<std::string> Refusal(Function&& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return std::nullopt;
}

/// A safetensors file from its header and data, as they are.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>((static_cast<uint64_t>(header.size()) >> (8 * i)) & 0xff);
  return bytes + header + data;
}

}  // namespace runahead
