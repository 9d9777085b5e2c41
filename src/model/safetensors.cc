#include "model/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/gguf_file.h"
#include "base/json.h"
#include "base/model_folder.h"
#include "model/gguf/dequantise.h"
#include "model/gguf/gguf_weights.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr size_t kLengthBytes = 8;                // a little-endian u64 opens the file
constexpr size_t kMaxHeaderBytes = 100'000'000;   // the limit of the format's own library
constexpr int64_t kMaxExtent = int64_t{1} << 48;  // largest extent of one dimension, elements
constexpr size_t kMaxDimensions = 16;
constexpr size_t kNoFile = SIZE_MAX;  // a shard that is not there

/// Bits of one element, or 0 for a dtype that is not known: its tensors are refused when they are needed.
size_t BitsOf(std::string_view dtype) {
  constexpr std::array<std::pair<std::string_view, size_t>, 16> kBits = {{{"BOOL", 8},
                                                                          {"U8", 8},
                                                                          {"I8", 8},
                                                                          {"F8_E4M3", 8},
                                                                          {"F8_E5M2", 8},
                                                                          {"F8_E8M0", 8},
                                                                          {"I16", 16},
                                                                          {"U16", 16},
                                                                          {"F16", 16},
                                                                          {"BF16", 16},
                                                                          {"I32", 32},
                                                                          {"U32", 32},
                                                                          {"F32", 32},
                                                                          {"I64", 64},
                                                                          {"U64", 64},
                                                                          {"F64", 64}}};
  for (const auto& [name, bits] : kBits) {
    if (name == dtype) return bits;
  }
  return 0;
}

/// A name from a file, fit for one line of an error.
std::string Shown(std::string name) {
  constexpr size_t kMaxShown = 120;
  if (name.size() > kMaxShown) {
    name.resize(kMaxShown);
    name += "...";
  }
  std::replace_if(
      name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, '?');
  return name;
}

/// Whether something is there, if only a dangling link: opening it says where that leads.
bool Exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
}

/// What else the folder has that looks like weights, for an error.
std::string OtherWeights(const std::filesystem::path& dir) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".gguf")) return fmt::format("; {} is given by its own path", Shown(name));
    for (const std::string_view ending : {".bin", ".pth", ".pt"}) {
      if (!name.ends_with(ending) || name == "training_args.bin") continue;
      return fmt::format("; {} is not supported, safetensors and GGUF files are", Shown(name));
    }
  }
  return "";
}

/// The header's text. Throws IoError when the file is too short for it.
std::string_view HeaderText(const std::string& origin, std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) {
    throw IoError(fmt::format("{}: {} bytes are too few for a safetensors file", origin, file.size()));
  }
  if (IsLfsPointer({reinterpret_cast<const char*>(file.data()), file.size()})) {
    throw IoError(fmt::format("{}: {}", origin, kLfsPointerReason));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<uint64_t>(file[i]) << (8 * i);
  if (length > kMaxHeaderBytes) {
    throw ConfigError(
        fmt::format("{}: header length {} is over the format's limit of {} bytes", origin, length, kMaxHeaderBytes));
  }
  if (length > file.size() - kLengthBytes) {
    throw IoError(fmt::format("{}: header length {} goes beyond the file's {} bytes", origin, length, file.size()));
  }
  return {reinterpret_cast<const char*>(file.data()) + kLengthBytes, static_cast<size_t>(length)};
}

/// Reads an array of integers within [0, max].
std::vector<int64_t> Integers(const JsonObject& object, const char* key, size_t max_count, int64_t max) {
  const Json& array = object.At(key);
  if (!array.is_array() || array.size() > max_count) {
    object.Refuse(key, fmt::format("expected an array of at most {} integers", max_count));
  }
  std::vector<int64_t> values;
  for (const Json& item : array) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > static_cast<uint64_t>(max)) {
      object.Refuse(key, fmt::format("expected integers from 0 to {}", max));
    }
    values.push_back(item.get<int64_t>());
  }
  return values;
}

/// One entry of the header; offsets become those of the file, whose data starts at `data_begin`.
StoredTensor ParseEntry(const JsonObject& entry, size_t data_begin, size_t file_bytes) {
  StoredTensor tensor;
  tensor.dtype = entry.String("dtype");
  tensor.shape = Integers(entry, "shape", kMaxDimensions, kMaxExtent);
  const std::vector<int64_t> offsets = Integers(entry, "data_offsets", 2, INT64_MAX);
  if (offsets.size() != 2) entry.Refuse("data_offsets", "expected two offsets");
  const auto begin = static_cast<size_t>(offsets[0]);
  const auto end = static_cast<size_t>(offsets[1]);
  const size_t data_bytes = file_bytes - data_begin;
  if (begin > end) entry.Refuse("data_offsets", "the begin must not be after the end");
  if (end > data_bytes) {
    throw IoError(fmt::format("{}: data_offsets: [{}, {}] goes beyond the file's {} bytes of data", entry.origin(),
                              begin, end, data_bytes));
  }
  tensor.begin = data_begin + begin;
  tensor.end = data_begin + end;

  size_t bits = BitsOf(tensor.dtype);
  if (bits == 0) return tensor;
  for (const int64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(bits, static_cast<size_t>(extent), &bits)) {
      entry.Refuse("shape", "the number of elements overflows");
    }
  }
  if (bits / 8 != end - begin) {
    throw ConfigError(fmt::format("{}: shape [{}] of {} needs {} bytes, data_offsets hold {}", entry.origin(),
                                  fmt::join(tensor.shape, ", "), tensor.dtype, bits / 8, end - begin));
  }
  return tensor;
}

/// The data section must be tiled by the tensors: no gap, no overlap, nothing after the last.
void CheckTiling(const std::string& origin, const std::map<std::string, StoredTensor>& tensors, size_t data_begin,
                 size_t file_bytes) {
  std::vector<std::pair<const StoredTensor*, const std::string*>> order;
  for (const auto& [name, tensor] : tensors) order.emplace_back(&tensor, &name);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  size_t reached = data_begin;
  for (const auto& [tensor, name] : order) {
    if (tensor->begin != reached) {
      throw ConfigError(
          fmt::format("{}: tensor {}: data_offsets: begins at {}, {} the tensor before it, which ends at {}", origin,
                      Shown(*name), tensor->begin - data_begin,
                      tensor->begin < reached ? "overlapping" : "leaving a gap after", reached - data_begin));
    }
    reached = tensor->end;
  }
  if (reached != file_bytes) {
    throw ConfigError(fmt::format("{}: {} bytes follow the last tensor", origin, file_bytes - reached));
  }
}

std::string ShowShape(const Shape& shape) {
  std::vector<int64_t> extents;
  for (int i = 0; i < shape.rank(); ++i) extents.push_back(shape[i]);
  return fmt::format("[{}]", fmt::join(extents, ", "));
}

bool SameShape(const Shape& expected, const std::vector<int64_t>& got) {
  if (static_cast<size_t>(expected.rank()) != got.size()) return false;
  for (int i = 0; i < expected.rank(); ++i) {
    if (expected[i] != got[static_cast<size_t>(i)]) return false;
  }
  return true;
}

}  // namespace

std::optional<DType> StoredDType(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "BF16") return DType::kBF16;
  if (name == "F16") return DType::kF16;
  return std::nullopt;
}

bool IsAligned(const StoredTensor& tensor, DType dtype) { return tensor.begin % SizeOf(dtype) == 0; }

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : WeightFile(path, MappedFile(path)) {
  const std::string origin = path.string();
  const std::string_view text = HeaderText(origin, bytes());
  const size_t data_begin = kLengthBytes + text.size();
  const Json json = ParseJson(text, origin);
  const JsonObject header(json, origin);
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    Add(name,
        ParseEntry(JsonObject(entry, fmt::format("{}: tensor {}", origin, Shown(name))), data_begin, bytes().size()));
  }
  CheckTiling(origin, tensors(), data_begin, bytes().size());
}

std::span<const std::byte> WeightFile::Bytes(const StoredTensor& tensor) const {
  return file_.bytes().subspan(tensor.begin, tensor.bytes());
}

WeightFiles::WeightFiles(const std::filesystem::path& dir) : origin_(dir / "model.safetensors") {
  if (IsGgufPath(dir)) {
    origin_ = dir;
    files_.push_back(gguf::GgufWeights(dir));
    for (const auto& [name, tensor] : files_[0].tensors()) places_[name] = {&files_[0], &tensor};
    return;
  }
  const std::filesystem::path index = dir / "model.safetensors.index.json";
  if (!Exists(origin_) && Exists(index)) {
    OpenShards(dir, index);
    return;
  }
  if (!Exists(origin_)) {
    throw IoError(fmt::format("{}: has neither model.safetensors nor model.safetensors.index.json{}", dir.string(),
                              OtherWeights(dir)));
  }
  files_.push_back(SafetensorsFile(origin_));
  for (const auto& [name, tensor] : files_[0].tensors()) places_[name] = {&files_[0], &tensor};
}

void WeightFiles::OpenShards(const std::filesystem::path& dir, const std::filesystem::path& index) {
  origin_ = index;
  const Json json = LoadJson(index);
  const JsonObject weight_map = JsonObject(json, index.string()).Object("weight_map");
  std::map<std::string, size_t> shards;
  for (const auto& [name, shard] : weight_map.json().items()) {
    if (!shard.is_string()) weight_map.Refuse(name.c_str(), "expected the name of a file");
    const auto file_name = shard.get<std::string>();
    const bool plain = !file_name.empty() && file_name != "." && file_name != ".." &&
                       file_name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!plain) weight_map.Refuse(name.c_str(), "expected the name of a file in the model's folder");
    shards.emplace(file_name, 0);
  }
  files_.reserve(shards.size());
  for (auto& [file_name, place] : shards) {
    place = kNoFile;
    if (!Exists(dir / file_name)) continue;
    place = files_.size();
    files_.push_back(SafetensorsFile(dir / file_name));
  }
  for (const WeightFile& file : files_) {
    for (const auto& [name, tensor] : file.tensors()) places_[name] = {&file, &tensor};
  }
  for (const auto& [name, shard] : weight_map.json().items()) {  // decides where several shards hold a tensor
    const auto file_name = shard.get<std::string>();
    const size_t place = shards.at(file_name);
    if (place != kNoFile && files_[place].tensors().contains(name)) {
      places_[name] = {&files_[place], &files_[place].tensors().at(name)};
    } else if (!places_.contains(name)) {
      unfound_[name] = dir / file_name;
    }
  }
}

void WeightFiles::RefuseMissing(const std::string& name, const Shape& shape) const {
  const auto promised = unfound_.find(name);
  if (promised == unfound_.end()) {
    throw ConfigError(
        fmt::format("{}: tensor {} is missing, expected shape {}", origin_.string(), name, ShowShape(shape)));
  }
  const std::string shard = Shown(promised->second.string());
  if (!Exists(promised->second)) {
    throw IoError(fmt::format("{}: the shard that {} names for tensor {} is missing", shard, origin_.string(), name));
  }
  throw ConfigError(
      fmt::format("{}: tensor {} is missing, though {} says it is there", shard, name, origin_.string()));
}

WeightFiles::Place WeightFiles::Find(const NamedShape& wanted) const {
  const auto& [name, shape, dtype, parameters] = wanted;
  const auto found = places_.find(name);
  if (found == places_.end()) RefuseMissing(name, shape);
  const auto& [file, tensor] = found->second;
  const bool wide = tensor->dtype == kF64Name || tensor->dtype == kFp8Name || tensor->dtype == kInt8Name;
  const bool numbers = StoredDType(tensor->dtype) || wide || tensor->quantised != nullptr;
  if (dtype.empty() ? !numbers : tensor->dtype != dtype) {
    const std::string known = !dtype.empty()             ? std::string(dtype)
                              : IsGgufPath(file->path()) ? gguf::TypeNames()
                                                         : "BF16, F16, F32, F64, F8_E4M3 or I8";
    throw ConfigError(
        fmt::format("{}: tensor {}: expected dtype {}, got {}", file->path().string(), name, known, tensor->dtype));
  }
  if (!SameShape(shape, tensor->shape)) {
    throw ConfigError(fmt::format("{}: tensor {}: expected shape {}, got [{}]", file->path().string(), name,
                                  ShowShape(shape), fmt::join(tensor->shape, ", ")));
  }
  return found->second;
}

HostTensor WeightFiles::Read(const std::string& name, const Shape& shape) const {
  const auto [file, tensor] = Find(name, shape);
  CHECK(StoredDType(tensor->dtype).has_value());
  const DType dtype = *StoredDType(tensor->dtype);
  const std::span<const std::byte> bytes = file->Bytes(*tensor);
  HostTensor host;
  // Views are of mutable memory, but nobody writes weights; the mapping is read-only.
  auto* data = const_cast<std::byte*>(bytes.data());
  if (!IsAligned(*tensor, dtype)) {
    host.copy.assign(bytes.begin(), bytes.end());
    data = host.copy.data();
  }
  host.view = TensorView(data, dtype, shape);
  return host;
}

}  // namespace runahead
