#include "base/gguf_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/model_folder.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr size_t kMaxNameBytes = 65535;
constexpr int64_t kMaxExtent = int64_t{1} << 48;  // elements of one dimension
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;  // bytes
constexpr uint64_t kDefaultAlignment = 32;             // bytes

/// The format's numbers of the types of values.
enum class ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kText, kArray, kU64, kI64, kF64 };

/// Text from a file, fit for one line of an error.
std::string Shown(std::string_view text) {
  constexpr size_t kMaxShown = 80;
  std::string shown(text.substr(0, kMaxShown));
  std::replace_if(
      shown.begin(), shown.end(), [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
  return text.size() > kMaxShown ? shown + "..." : shown;
}

std::string Shown(const GgufFile::Value& value) {
  struct Visitor {
    std::string operator()(bool value) const { return value ? "true" : "false"; }
    std::string operator()(std::string_view text) const { return fmt::format("'{}'", Shown(text)); }
    std::string operator()(const GgufFile::Texts& texts) const { return fmt::format("{} texts", texts.size()); }
    std::string operator()(const GgufFile::Numbers& numbers) const {
      return fmt::format("{} numbers", numbers.size());
    }
    std::string operator()(uint64_t value) const { return std::to_string(value); }
    std::string operator()(int64_t value) const { return std::to_string(value); }
    std::string operator()(double value) const { return fmt::format("{}", value); }
  };
  return std::visit(Visitor(), value);
}

}  // namespace

bool IsGgufPath(const std::filesystem::path& path) {
  std::error_code ignored;
  return path.extension() == ".gguf" && std::filesystem::is_regular_file(path, ignored);
}

/// Reads one value after the other.
class GgufFile::Reader {
 public:
  explicit Reader(GgufFile& file) : file_(file), bytes_(file.bytes()) {}

  void Run() {
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
    if (IsLfsPointer(text)) throw IoError(fmt::format("{}: {}", file_.origin_, kLfsPointerReason));
    where_ = "header";
    const auto magic = Take<uint32_t>();
    if (magic != kMagic) Refuse(fmt::format("expected GGUF, got {:#010x}", magic));
    const auto version = Take<uint32_t>();
    if (version != 2 && version != 3) {
      const bool swapped = version == __builtin_bswap32(2) || version == __builtin_bswap32(3);
      Refuse(swapped ? "big-endian files are not supported"
                     : fmt::format("expected version 2 or 3, got {}", version));
    }
    const auto tensors = Take<uint64_t>();
    const auto values = Take<uint64_t>();
    for (uint64_t i = 0; i < values; ++i) TakePair(fmt::format("metadata {} of {}", i + 1, values));
    const uint64_t alignment = Alignment();
    for (uint64_t i = 0; i < tensors; ++i) TakeTensor(fmt::format("tensor {} of {}", i + 1, tensors), alignment);
    Place(alignment);
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw ConfigError(fmt::format("{}: {}: {}", file_.origin_, where_, what));
  }

  void Need(uint64_t count, uint64_t size) const {
    if (count > (bytes_.size() - at_) / size) {
      throw IoError(fmt::format("{}: {}: {} times {} bytes at {} go beyond the file's {} bytes", file_.origin_,
                                where_, count, size, at_, bytes_.size()));
    }
  }

  template <typename T>
  T Take() {
    Need(1, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  std::string_view TakeText() {
    const auto length = Take<uint64_t>();
    Need(length, 1);
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + at_, length);
    at_ += length;
    return text;
  }

  std::string_view TakeName() {
    const std::string_view name = TakeText();
    if (name.empty() || name.size() > kMaxNameBytes) {
      Refuse(fmt::format("expected a name of 1 to {} bytes, got {}", kMaxNameBytes, name.size()));
    }
    if (std::any_of(name.begin(), name.end(), [](char c) { return c <= ' ' || c > '~'; })) {
      Refuse(fmt::format("expected a name of visible ASCII characters, got '{}'", Shown(name)));
    }
    where_ = Shown(name);
    return name;
  }

  bool TakeBool() {
    const auto value = Take<uint8_t>();
    if (value > 1) Refuse(fmt::format("expected a bool of 0 or 1, got {}", value));
    return value == 1;
  }

  Value TakeValue(uint32_t type) {
    switch (static_cast<ValueType>(type)) {
      case ValueType::kU8:
        return uint64_t{Take<uint8_t>()};
      case ValueType::kU16:
        return uint64_t{Take<uint16_t>()};
      case ValueType::kU32:
        return uint64_t{Take<uint32_t>()};
      case ValueType::kU64:
        return Take<uint64_t>();
      case ValueType::kI8:
        return int64_t{Take<int8_t>()};
      case ValueType::kI16:
        return int64_t{Take<int16_t>()};
      case ValueType::kI32:
        return int64_t{Take<int32_t>()};
      case ValueType::kI64:
        return Take<int64_t>();
      case ValueType::kF32:
        return double{Take<float>()};
      case ValueType::kF64:
        return Take<double>();
      case ValueType::kBool:
        return TakeBool();
      case ValueType::kText:
        return TakeText();
      case ValueType::kArray:
        return TakeArray();
    }
    Refuse(fmt::format("expected a type of value from 0 to 12, got {}", type));
  }

  Value TakeArray() {
    const auto type = Take<uint32_t>();
    const auto count = Take<uint64_t>();
    if (static_cast<ValueType>(type) == ValueType::kArray) Refuse("an array of arrays is not supported");
    if (static_cast<ValueType>(type) == ValueType::kText) {
      Need(count, sizeof(uint64_t));
      Texts texts;
      for (uint64_t i = 0; i < count; ++i) texts.push_back(TakeText());
      return texts;
    }
    Need(count, 1);
    Numbers numbers;
    for (uint64_t i = 0; i < count; ++i) {
      numbers.push_back(std::visit(
          [](const auto& value) -> double {
            if constexpr (std::is_arithmetic_v<std::decay_t<decltype(value)>>) return static_cast<double>(value);
            return 0;
          },
          TakeValue(type)));
    }
    return numbers;
  }

  void TakePair(std::string where) {
    where_ = std::move(where);
    const std::string_view key = TakeName();
    const auto type = Take<uint32_t>();
    if (!file_.metadata_.emplace(key, TakeValue(type)).second) Refuse("the key is there twice");
  }

  [[nodiscard]] uint64_t Alignment() const {
    constexpr const char* kKey = "general.alignment";
    if (!file_.Has(kKey)) return kDefaultAlignment;
    const auto alignment = static_cast<uint64_t>(file_.Int(kKey, 1, kMaxAlignment));
    if ((alignment & (alignment - 1)) != 0) file_.Refuse(kKey, "expected a power of two");
    return alignment;
  }

  void TakeTensor(std::string where, uint64_t alignment) {
    where_ = std::move(where);
    const std::string_view name = TakeName();
    where_ = "tensor " + where_;
    Tensor tensor;
    const auto dimensions = Take<uint32_t>();
    if (dimensions < 1 || dimensions > kMaxDimensions) {
      Refuse(fmt::format("expected 1 to {} dimensions, got {}", kMaxDimensions, dimensions));
    }
    int64_t elements = 1;
    for (uint32_t i = 0; i < dimensions; ++i) {
      const auto extent = Take<uint64_t>();
      if (extent < 1 || extent > uint64_t{kMaxExtent} ||
          __builtin_mul_overflow(elements, static_cast<int64_t>(extent), &elements)) {
        Refuse(fmt::format("dimension {}: expected 1 to {} elements, got {}", i, kMaxExtent, extent));
      }
      tensor.extents.push_back(static_cast<int64_t>(extent));
    }
    tensor.type = Take<uint32_t>();
    const auto offset = Take<uint64_t>();
    if (offset % alignment != 0) Refuse(fmt::format("offset: expected a multiple of {}, got {}", alignment, offset));
    tensor.begin = offset;
    if (!file_.tensors_.emplace(name, std::move(tensor)).second) Refuse("the tensor is there twice");
  }

  /// Offsets become places in the file.
  void Place(uint64_t alignment) {
    const size_t data = (at_ + alignment - 1) / alignment * alignment;
    for (auto& [name, tensor] : file_.tensors_) {
      if (data > bytes_.size() || tensor.begin > bytes_.size() - data) {
        throw IoError(fmt::format("{}: tensor {}: offset {} behind {} bytes goes beyond the file's {} bytes",
                                  file_.origin_, Shown(name), tensor.begin, data, bytes_.size()));
      }
      tensor.begin += data;
    }
  }

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  std::string where_;  // what is being read, for errors
};

GgufFile::GgufFile(const std::filesystem::path& path) : origin_(path.string()), file_(path) { Reader(*this).Run(); }

const GgufFile::Value& GgufFile::At(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) throw ConfigError(fmt::format("{}: {}: missing", origin_, key));
  return found->second;
}

void GgufFile::Refuse(const std::string& key, const std::string& what) const {
  throw ConfigError(fmt::format("{}: {}: {}, got {}", origin_, key, what, Shown(At(key))));
}

int64_t GgufFile::Int(const std::string& key, int64_t min, int64_t max) const {
  const Value& value = At(key);
  const auto in_range = [&](auto number) {
    return std::cmp_greater_equal(number, min) && std::cmp_less_equal(number, max);
  };
  if (const auto* number = std::get_if<uint64_t>(&value); number != nullptr && in_range(*number)) {
    return static_cast<int64_t>(*number);
  }
  if (const auto* number = std::get_if<int64_t>(&value); number != nullptr && in_range(*number)) return *number;
  Refuse(key, fmt::format("expected an integer from {} to {}", min, max));
}

double GgufFile::Number(const std::string& key) const {
  const Value& value = At(key);
  if (const auto* number = std::get_if<double>(&value); number != nullptr && std::isfinite(*number)) return *number;
  if (const auto* number = std::get_if<uint64_t>(&value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<int64_t>(&value)) return static_cast<double>(*number);
  Refuse(key, "expected a finite number");
}

std::string_view GgufFile::Text(const std::string& key) const {
  if (const auto* text = std::get_if<std::string_view>(&At(key))) return *text;
  Refuse(key, "expected a text");
}

const GgufFile::Texts& GgufFile::TextArray(const std::string& key) const {
  if (const auto* texts = std::get_if<Texts>(&At(key))) return *texts;
  Refuse(key, "expected an array of texts");
}

const GgufFile::Numbers& GgufFile::NumberArray(const std::string& key) const {
  if (const auto* numbers = std::get_if<Numbers>(&At(key))) return *numbers;
  Refuse(key, "expected an array of numbers");
}

bool GgufFile::Bool(const std::string& key, bool otherwise) const {
  if (!Has(key)) return otherwise;
  if (const auto* value = std::get_if<bool>(&At(key))) return *value;
  Refuse(key, "expected true or false");
}

std::optional<int32_t> GgufFile::TokenId(const std::string& key, int64_t tokens) const {
  if (!Has(key)) return std::nullopt;
  return static_cast<int32_t>(Int(key, 0, std::min<int64_t>(tokens, INT32_MAX) - 1));
}

}  // namespace runahead
