// Files of the GGUF format (github.com/ggml-org/ggml, docs/gguf.md): metadata, and where each tensor lies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/file.h"
#include "base/json.h"

namespace runahead {

/// Whether `path` is a regular file named as GGUF files are.
bool IsGgufPath(const std::filesystem::path& path);

/// One mapped file of the GGUF format, version 2 or 3, little-endian. Move-only; threads may share it.
class GgufFile {
 public:
  /// Numbers are widened; arrays hold what JSON does not need to: texts, or numbers of one kind.
  using Texts = std::vector<std::string_view>;
  using Numbers = std::vector<double>;
  using Value = std::variant<bool, uint64_t, int64_t, double, std::string_view, Texts, Numbers>;

  struct Tensor {
    std::vector<int64_t> extents;  // the fastest first, as the file has them
    uint32_t type = 0;             // the format's number of a tensor's type
    size_t begin = 0;              // bytes from the start of the file; within it
  };

  /// Maps the file and reads all but the tensors' data. Throws IoError for a file that ends too early, ConfigError
  /// naming the key or the tensor and the value for anything else that the format forbids.
  explicit GgufFile(const std::filesystem::path& path);

  [[nodiscard]] const std::string& origin() const { return origin_; }  // the path, for errors
  [[nodiscard]] std::span<const std::byte> bytes() const { return file_.bytes(); }
  [[nodiscard]] const std::map<std::string_view, Value>& metadata() const { return metadata_; }
  [[nodiscard]] const std::map<std::string_view, Tensor>& tensors() const { return tensors_; }

  /// The mapping, which everything here lies in. The object then still knows where its tensors are.
  MappedFile TakeFile() { return std::move(file_); }

  [[nodiscard]] bool Has(const std::string& key) const { return metadata_.contains(key); }
  // Each throws ConfigError naming file, key and value when it is missing, of another type, or out of range.
  [[nodiscard]] int64_t Int(const std::string& key, int64_t min, int64_t max) const;
  [[nodiscard]] double Number(const std::string& key) const;
  [[nodiscard]] std::string_view Text(const std::string& key) const;
  [[nodiscard]] const Texts& TextArray(const std::string& key) const;
  [[nodiscard]] const Numbers& NumberArray(const std::string& key) const;
  [[nodiscard]] bool Bool(const std::string& key, bool otherwise) const;
  /// The token id that `key` holds, below `tokens`, where it is there.
  [[nodiscard]] std::optional<int32_t> TokenId(const std::string& key, int64_t tokens) const;

  /// Throws ConfigError: "<file>: <key>: <what>, got <value>".
  [[noreturn]] void Refuse(const std::string& key, const std::string& what) const;

 private:
  class Reader;
  [[nodiscard]] const Value& At(const std::string& key) const;

  std::string origin_;
  MappedFile file_;
  std::map<std::string_view, Value> metadata_;
  std::map<std::string_view, Tensor> tensors_;
};

}  // namespace runahead
