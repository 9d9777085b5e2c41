#include "model/gguf/gguf_weights.h"

#include <fmt/format.h>

#include "base/gguf_file.h"
#include "model/gguf/dequantise.h"
#include "runahead/error.h"

namespace runahead::gguf {
namespace {

/// A tensor whose type is known, with the end of its data.
StoredTensor Bounded(const std::string& where, const GgufFile::Tensor& from, const ElementType& type,
                     size_t file_bytes) {
  if (from.extents[0] % type.block != 0) {
    throw ConfigError(fmt::format("{}: expected rows of a multiple of {} elements of {}, got {}", where, type.block,
                                  type.name, from.extents[0]));
  }
  uint64_t blocks = 1;
  for (size_t i = 0; i < from.extents.size(); ++i) {
    blocks *= static_cast<uint64_t>(i == 0 ? from.extents[0] / type.block : from.extents[i]);
  }
  if (blocks > (file_bytes - from.begin) / type.bytes) {
    throw IoError(fmt::format("{}: {} blocks of {} bytes at {} go beyond the file's {} bytes", where, blocks,
                              type.bytes, from.begin, file_bytes));
  }
  StoredTensor tensor;
  tensor.dtype = type.name;
  tensor.quantised = type.dequantise != nullptr ? &type : nullptr;
  tensor.begin = from.begin;
  tensor.end = from.begin + blocks * type.bytes;
  return tensor;
}

}  // namespace

GgufWeights::GgufWeights(const std::filesystem::path& path) : GgufWeights(path, GgufFile(path)) {}

GgufWeights::GgufWeights(const std::filesystem::path& path, GgufFile file) : WeightFile(path, file.TakeFile()) {
  for (const auto& [name, from] : file.tensors()) {
    const std::string where = fmt::format("{}: tensor {}", file.origin(), name);
    const ElementType* type = TypeOf(from.type);
    StoredTensor tensor;
    if (type != nullptr) {
      tensor = Bounded(where, from, *type, bytes().size());
    } else {  // refused when it is needed
      tensor.dtype = fmt::format("type {}", from.type);
      tensor.begin = tensor.end = from.begin;
    }
    tensor.shape.assign(from.extents.rbegin(), from.extents.rend());
    Add(std::string(name), std::move(tensor));
  }
}

}  // namespace runahead::gguf
