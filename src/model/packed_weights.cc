#include "model/packed_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int kWordBits = 32;

int64_t CeilDivide(int64_t n, int64_t by) { return (n + by - 1) / by; }

/// Groups of a row's inputs.
int64_t Groups(const PackedFormat& format, int64_t columns) {
  return format.group == 0 ? 1 : CeilDivide(columns, format.group);
}

/// Names of a method's tensors, behind that of the matrix.
struct Suffixes {
  const char* numbers;
  const char* scales;
  const char* zeros;
  const char* group_index;
};
Suffixes SuffixesOf(PackedMethod method) {
  if (method == PackedMethod::kCompressedTensors) {
    return {".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_g_idx"};
  }
  return {".qweight", ".scales", ".qzeros", ".g_idx"};
}

constexpr const char* kShapeSuffix = ".weight_shape";  // of compressed-tensors: the matrix's extents

/// Integers of little-endian files, wherever they lie.
template <typename T>
class IntegersAt {
 public:
  explicit IntegersAt(WeightFiles::Place place) : bytes_(place.file->Bytes(*place.tensor).data()) {}
  T operator[](int64_t i) const {
    T value;
    std::memcpy(&value, bytes_ + static_cast<size_t>(i) * sizeof(T), sizeof(T));
    return value;
  }

 private:
  const std::byte* bytes_;
};
using Words = IntegersAt<uint32_t>;

/// Where eight neighbours lie in a word of AWQ: the evens before the odds.
constexpr std::array<int, 8> kAwqPlace = {0, 4, 1, 5, 2, 6, 3, 7};

/// The group of each input.
std::vector<int64_t> GroupOfInputs(const WeightFiles& files, const PackedFormat& format, const std::string& name,
                                   int64_t columns) {
  const int64_t groups = Groups(format, columns);
  std::vector<int64_t> group_of(static_cast<size_t>(columns));
  for (int64_t i = 0; i < columns; ++i) {
    group_of[static_cast<size_t>(i)] = format.group == 0 ? 0 : i / format.group;
  }
  if (!format.group_index) return group_of;
  const std::string tensor = name + SuffixesOf(format.method).group_index;
  const WeightFiles::Place place = files.Find({tensor, {columns}, kInt32Name});
  const IntegersAt<int32_t> stored(place);
  bool unset = format.method == PackedMethod::kCompressedTensors;  // all are -1 where nothing was reordered
  for (int64_t i = 0; i < columns && unset; ++i) unset = stored[i] == -1;
  for (int64_t i = 0; i < columns && !unset; ++i) {
    if (stored[i] < 0 || stored[i] >= groups) {
      throw ConfigError(fmt::format("{}: tensor {}: element {}: expected a group from 0 to {}, got {}",
                                    place.file->path().string(), tensor, i, groups - 1, stored[i]));
    }
    group_of[static_cast<size_t>(i)] = stored[i];
  }
  return group_of;
}

/// The code whose number is 0, of each output and group: [rows, groups].
std::vector<float> ZeroPoints(const WeightFiles& files, const PackedFormat& format, const NamedShape* tensor,
                              int64_t rows, int64_t groups) {
  const auto middle = static_cast<float>(1 << (format.bits - 1));
  std::vector<float> zeros(static_cast<size_t>(rows * groups), middle);
  if (tensor == nullptr) return zeros;
  const Words words(files.Find(*tensor));
  const int64_t per_word = kWordBits / format.bits;
  const int64_t row_words = CeilDivide(rows, per_word);
  const uint32_t mask = (1U << format.bits) - 1;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t word = row / per_word;
    const auto at = static_cast<int>(row % per_word);
    const int place = format.method == PackedMethod::kAwq ? kAwqPlace[static_cast<size_t>(at)] : at;
    for (int64_t group = 0; group < groups; ++group) {
      const bool by_word = format.method == PackedMethod::kCompressedTensors;
      const uint32_t code =
          words[by_word ? word * groups + group : group * row_words + word] >> (place * format.bits);
      // The sum wraps as GPTQ's own reader has it: a zero point of 0 is stored as the largest code.
      const uint32_t zero = (code + (format.zeros_less_one ? 1 : 0)) & mask;
      zeros[static_cast<size_t>(row * groups + group)] = static_cast<float>(zero);
    }
  }
  return zeros;
}

/// Fills `to` by tiles of rows, so that words with neighbours of a column are read once. word(row, column) and
/// place(row, column) say where a code is.
template <typename Word, typename Place>
void Fill(int bits, int64_t rows, int64_t columns, const std::vector<int64_t>& group_of,
          const std::vector<float>& zeros, const std::vector<float>& scales, const Word& word, const Place& place,
          float* to) {
  constexpr int64_t kTile = 64;
  const int64_t groups = std::ssize(zeros) / rows;
  const uint32_t mask = (1U << bits) - 1;
  for (int64_t first = 0; first < rows; first += kTile) {
    const int64_t end = std::min(first + kTile, rows);
    for (int64_t column = 0; column < columns; ++column) {
      for (int64_t row = first; row < end; ++row) {
        const auto at = static_cast<size_t>(row * groups + group_of[static_cast<size_t>(column)]);
        const uint32_t code = word(row, column) >> (place(row, column) * bits) & mask;
        to[row * columns + column] = (static_cast<float>(code) - zeros[at]) * scales[at];
      }
    }
  }
}

void CheckShapeTensor(const WeightFiles& files, const std::string& name, int64_t rows, int64_t columns) {
  const WeightFiles::Place place = files.Find({name + kShapeSuffix, {2}, kInt64Name});
  const IntegersAt<int64_t> extents(place);
  if (extents[0] == rows && extents[1] == columns) return;
  throw ConfigError(fmt::format("{}: tensor {}: expected [{}, {}], got [{}, {}]", place.file->path().string(),
                                name + kShapeSuffix, rows, columns, extents[0], extents[1]));
}

/// Scales by output and group, [rows, groups].
std::vector<float> ScalesByRow(const PackedFormat& format, int64_t rows, int64_t groups, const float* stored) {
  std::vector<float> scales(static_cast<size_t>(rows * groups));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const bool by_row = format.method == PackedMethod::kCompressedTensors;
      const int64_t from = format.one_scale ? 0 : by_row ? row * groups + group : group * rows + row;
      scales[static_cast<size_t>(row * groups + group)] = stored[from];
    }
  }
  return scales;
}

}  // namespace

std::string ShowPacked(const PackedFormat& format) {
  const char* name = format.method == PackedMethod::kAwq    ? "awq"
                     : format.method == PackedMethod::kGptq ? "gptq"
                                                            : "compressed-tensors";
  const std::string scales = format.one_scale    ? "one scale a matrix"
                             : format.group == 0 ? "one scale a row"
                                                 : fmt::format("groups of {}", format.group);
  return fmt::format("{}, {} bits, {}", name, format.bits, scales);
}

std::vector<NamedShape> PackedTensors(const PackedFormat& format, const std::string& name, int64_t rows,
                                      int64_t columns) {
  const Suffixes suffixes = SuffixesOf(format.method);
  const int64_t per_word = kWordBits / format.bits;
  const int64_t groups = Groups(format, columns);
  const int64_t row_words = CeilDivide(rows, per_word);
  const bool by_row = format.method == PackedMethod::kCompressedTensors;
  const Shape numbers = by_row                                 ? Shape{rows, CeilDivide(columns, per_word)}
                        : format.method == PackedMethod::kGptq ? Shape{CeilDivide(columns, per_word), rows}
                                                               : Shape{columns, row_words};
  const Shape scales = format.one_scale ? Shape{1} : by_row ? Shape{rows, groups} : Shape{groups, rows};
  std::vector<NamedShape> tensors = {{name + suffixes.numbers, numbers, kInt32Name, rows * columns},
                                     {name + suffixes.scales, scales, {}, 0}};
  if (format.zero_points) {
    const Shape zeros = by_row ? Shape{row_words, groups} : Shape{groups, row_words};
    tensors.push_back({name + suffixes.zeros, zeros, kInt32Name, 0});
  }
  if (format.group_index) tensors.push_back({name + suffixes.group_index, {columns}, kInt32Name, 0});
  if (by_row) tensors.push_back({name + kShapeSuffix, {2}, kInt64Name, 0});
  return tensors;
}

PackedFormat PackedAsStored(const WeightFiles& files, PackedFormat format, const std::string& name) {
  const bool possible = format.method != PackedMethod::kAwq;
  const bool stored = possible && files.Has(name + SuffixesOf(format.method).group_index);
  format.group_index = stored || format.needs_group_index;
  return format;
}

void Unpack(const WeightFiles& files, const PackedFormat& format, const std::string& name, int64_t rows,
            int64_t columns, const float* scales, float* to) {
  const int64_t groups = Groups(format, columns);
  const std::vector<NamedShape> tensors = PackedTensors(format, name, rows, columns);
  const Words words(files.Find(tensors[0]));
  const std::vector<int64_t> group_of = GroupOfInputs(files, format, name, columns);
  const std::vector<float> zeros =
      ZeroPoints(files, format, format.zero_points ? &tensors[2] : nullptr, rows, groups);
  const std::vector<float> by_row = ScalesByRow(format, rows, groups, scales);
  const int64_t per_word = kWordBits / format.bits;
  const int shift = std::countr_zero(static_cast<uint64_t>(per_word));  // a division for each number is slow
  const auto fill = [&](const auto& word, const auto& place) {
    Fill(format.bits, rows, columns, group_of, zeros, by_row, word, place, to);
  };
  const auto place_of_column = [&](int64_t, int64_t column) { return static_cast<int>(column & (per_word - 1)); };
  switch (format.method) {
    case PackedMethod::kAwq: {
      const int64_t row_words = CeilDivide(rows, per_word);
      return fill([&](int64_t row, int64_t column) { return words[column * row_words + (row >> shift)]; },
                  [&](int64_t row, int64_t) { return kAwqPlace[static_cast<size_t>(row & (per_word - 1))]; });
    }
    case PackedMethod::kGptq:
      return fill([&](int64_t row, int64_t column) { return words[(column >> shift) * rows + row]; },
                  place_of_column);
    case PackedMethod::kCompressedTensors: {
      CheckShapeTensor(files, name, rows, columns);
      const int64_t column_words = CeilDivide(columns, per_word);
      return fill([&](int64_t row, int64_t column) { return words[row * column_words + (column >> shift)]; },
                  place_of_column);
    }
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown method");
}

}  // namespace runahead
