// Weights on disk: safetensors files, one or several shards, or a GGUF file, mapped and checked before any tensor is
// touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "tensor/tensor_view.h"

namespace runahead {

namespace gguf {
struct ElementType;
}

/// A tensor as a file's header describes it.
struct StoredTensor {
  std::string dtype;  // the name in the file, "BF16"
  std::vector<int64_t> shape;
  size_t begin = 0;  // bytes from the start of the file
  size_t end = 0;
  const gguf::ElementType* quantised = nullptr;  // how the blocks of a GGUF file become numbers

  [[nodiscard]] size_t bytes() const { return end - begin; }
};

/// Names of dtypes that are read as f32, as GGUF's quantised ones are; FP8 and int8 times the scales beside them
/// (WeightReader).
inline constexpr std::string_view kF64Name = "F64";
inline constexpr std::string_view kFp8Name = "F8_E4M3";
inline constexpr std::string_view kInt8Name = "I8";
/// Dtypes of tensors in which other numbers are, and of indices.
inline constexpr std::string_view kBytesName = "U8";
inline constexpr std::string_view kInt32Name = "I32";
inline constexpr std::string_view kInt64Name = "I64";

/// A tensor by its full name in the files.
struct NamedShape {
  std::string name;
  Shape shape;
  std::string_view dtype = {};             // the one that it must have; empty: any whose numbers are read
  std::optional<int64_t> parameters = {};  // the model's numbers that it holds; nothing: its elements
};

/// The dtype that the file's name for it means, or nothing where Runahead does not compute with it.
std::optional<DType> StoredDType(std::string_view name);

/// Whether the file holds the elements where they can be read as what they are.
bool IsAligned(const StoredTensor& tensor, DType dtype);

/// A tensor's elements in host memory: in the mapped file, or in `copy` where the file does not align them.
struct HostTensor {
  TensorView view;
  std::vector<std::byte> copy;  // empty when `view` lies in the file
  std::vector<float> scales;    // [rows], LinearPart::scales of `view`; or empty
};

/// One mapped file of tensors. Move-only; the bytes may be shared by threads.
class WeightFile {
 public:
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  [[nodiscard]] std::span<const std::byte> Bytes(const StoredTensor& tensor) const;

 protected:
  WeightFile(std::filesystem::path path, MappedFile file) : path_(std::move(path)), file_(std::move(file)) {}

  [[nodiscard]] std::span<const std::byte> bytes() const { return file_.bytes(); }
  void Add(const std::string& name, StoredTensor tensor) { tensors_.emplace(name, std::move(tensor)); }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, StoredTensor> tensors_;
};

/// A file of the safetensors format (github.com/huggingface/safetensors, "Format").
class SafetensorsFile : public WeightFile {
 public:
  /// Maps the file and checks its header: every tensor inside the file, none overlapping, no gaps, sizes that match
  /// dtype and shape. Throws IoError when the file ends too early, ConfigError naming tensor and value otherwise.
  explicit SafetensorsFile(const std::filesystem::path& path);
};

/// All weights of a model: model.safetensors of its folder, or the shards that model.safetensors.index.json lists, or
/// the GGUF file that is given in place of a folder. What the index says wrongly of a tensor that nobody asks for
/// does no harm. Move-only; views borrow it.
class WeightFiles {
 public:
  /// Throws IoError for a short file, or none at all; ConfigError for an index that names files outside the folder.
  explicit WeightFiles(const std::filesystem::path& dir);

  /// A tensor and the file it is in.
  struct Place {
    const WeightFile* file = nullptr;
    const StoredTensor* tensor = nullptr;
  };

  [[nodiscard]] int files() const { return static_cast<int>(files_.size()); }
  /// Every tensor by name.
  [[nodiscard]] const std::map<std::string, Place>& tensors() const { return places_; }
  [[nodiscard]] bool Has(const std::string& name) const { return places_.contains(name); }
  /// A tensor that must be there with this shape, in a dtype that Runahead reads. Throws ConfigError naming
  /// file, tensor, expected and got, and IoError for a tensor whose shard is missing.
  [[nodiscard]] Place Find(const std::string& name, const Shape& shape) const { return Find({name, shape}); }
  /// The same, of the dtype that `tensor` must have.
  [[nodiscard]] Place Find(const NamedShape& tensor) const;
  /// The elements of what Find finds, which has a dtype of ours.
  [[nodiscard]] HostTensor Read(const std::string& name, const Shape& shape) const;

 private:
  void OpenShards(const std::filesystem::path& dir, const std::filesystem::path& index);
  /// Throws what is known about a tensor that is in no file.
  [[noreturn]] void RefuseMissing(const std::string& name, const Shape& shape) const;

  std::filesystem::path origin_;  // the file that lists the tensors, for errors
  std::vector<WeightFile> files_;
  std::map<std::string, Place> places_;
  std::map<std::string, std::filesystem::path>
      unfound_;  // tensors that the index has in a file, but that file has not
};

}  // namespace runahead
