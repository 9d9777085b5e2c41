// Packed matrices of random codes against sums of their bits one by one, and tensors that do not fit.
#include "model/packed_weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "model/model_info.h"
#include "model/weight_reader.h"
#include "tests/model/model_testing.h"

namespace runahead {
namespace {

struct Size {
  int64_t rows;
  int64_t columns;
};

/// A matrix of random codes, scales and zero points, and the tensors that hold it.
class PackedMatrix {
 public:
  PackedMatrix(const PackedFormat& format, Size size, unsigned seed) : format_(format), size_(size), random_(seed) {
    groups_ = format.group == 0 ? 1 : (size.columns + format.group - 1) / format.group;
    codes_ = Draw(size.rows * size.columns, 1 << format.bits);
    zeros_ = Draw(size.rows * groups_, 1 << format.bits);
    scales_ = Draw(size.rows * groups_, 1000);
    group_of_ = Draw(size.columns, static_cast<int>(groups_));
    for (const NamedShape& tensor : PackedTensors(format, "a", size.rows, size.columns)) Write(tensor);
  }

  /// The tensors by name, to be changed before they are saved.
  std::map<std::string, std::pair<NamedShape, std::string>>& tensors() { return tensors_; }

  void Save(const std::filesystem::path& dir) const {
    Json header;
    std::string data;
    for (const auto& [name, tensor] : tensors_) {
      std::vector<int64_t> shape;
      for (int i = 0; i < tensor.first.shape.rank(); ++i) shape.push_back(tensor.first.shape[i]);
      const size_t begin = data.size();
      data += tensor.second;
      header[name] = {{"dtype", tensor.first.dtype}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
    }
    WriteFile(dir / "model.safetensors", SafetensorsBytes(header.dump(), data));
  }

  [[nodiscard]] double Expected(int64_t row, int64_t column) const {
    const int64_t group = format_.group_index ? group_of_[static_cast<size_t>(column)]
                          : format_.group > 0 ? column / format_.group
                                              : 0;
    const auto at = static_cast<size_t>(row * groups_ + group);
    const int zero = format_.zero_points ? zeros_[at] : 1 << (format_.bits - 1);
    const int scale = format_.one_scale ? scales_[0] : scales_[at];
    return (codes_[static_cast<size_t>(row * size_.columns + column)] - zero) * static_cast<double>(scale) / 1024;
  }

 private:
  std::vector<int> Draw(int64_t count, int below) {
    std::vector<int> values(static_cast<size_t>(count));
    for (int& value : values) value = static_cast<int>(random_() % static_cast<unsigned>(below));
    return values;
  }

  template <typename T, typename Value>
  static std::string Bytes(int64_t count, const Value& value) {
    std::string bytes(static_cast<size_t>(count) * sizeof(T), '\0');
    for (int64_t i = 0; i < count; ++i) {
      const auto one = static_cast<T>(value(i));
      std::memcpy(bytes.data() + static_cast<size_t>(i) * sizeof(T), &one, sizeof(T));
    }
    return bytes;
  }

  /// Sets the bits of code `index` of a line of words that begins at word `first` and has `stride` between them.
  void SetBits(std::string& bytes, int64_t first, int64_t stride, int64_t index, int code) const {
    constexpr int kAwqOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};  // which neighbour is in each nibble
    const int per_word = 32 / format_.bits;
    auto place = static_cast<int>(index % per_word);
    if (format_.method == PackedMethod::kAwq)
      place = static_cast<int>(std::ranges::find(kAwqOrder, place) - kAwqOrder);
    for (int bit = 0; bit < format_.bits; ++bit) {
      if ((code >> bit & 1) == 0) continue;
      const int at = place * format_.bits + bit;
      bytes[static_cast<size_t>((first + index / per_word * stride) * 4 + at / 8)] |= static_cast<char>(1 << at % 8);
    }
  }

  void Write(NamedShape tensor) {
    const int64_t count = tensor.shape.elements();
    const bool by_row = format_.method == PackedMethod::kCompressedTensors;
    std::string bytes(static_cast<size_t>(count) * 4, '\0');
    if (tensor.name.ends_with("scales") || tensor.name.ends_with("_scale")) {
      tensor.dtype = "F32";
      bytes = Bytes<float>(count, [&](int64_t i) {
        const auto at = by_row ? i : i % size_.rows * groups_ + i / size_.rows;
        return scales_[static_cast<size_t>(at)] / 1024.0F;
      });
    } else if (tensor.name.ends_with("g_idx")) {
      bytes = Bytes<int32_t>(count, [&](int64_t i) { return group_of_[static_cast<size_t>(i)]; });
    } else if (tensor.name.ends_with("_shape")) {
      bytes = Bytes<int64_t>(count, [&](int64_t i) { return i == 0 ? size_.rows : size_.columns; });
    } else if (tensor.name.ends_with("qzeros") || tensor.name.ends_with("_zero_point")) {
      for (int64_t group = 0; group < groups_; ++group) {
        for (int64_t row = 0; row < size_.rows; ++row) {
          const int zero = zeros_[static_cast<size_t>(row * groups_ + group)] - (format_.zeros_less_one ? 1 : 0);
          const int64_t first = by_row ? group : group * tensor.shape[1];
          SetBits(bytes, first, by_row ? groups_ : 1, row, zero);
        }
      }
    } else {
      for (int64_t row = 0; row < size_.rows; ++row) {
        for (int64_t column = 0; column < size_.columns; ++column) {
          const int code = codes_[static_cast<size_t>(row * size_.columns + column)];
          if (format_.method == PackedMethod::kAwq) SetBits(bytes, column * tensor.shape[1], 1, row, code);
          if (format_.method == PackedMethod::kGptq) SetBits(bytes, row, size_.rows, column, code);
          if (by_row) SetBits(bytes, row * tensor.shape[1], 1, column, code);
        }
      }
    }
    tensors_[tensor.name] = {tensor, bytes};
  }

  PackedFormat format_;
  Size size_;
  std::mt19937 random_;
  int64_t groups_ = 0;
  std::vector<int> codes_;
  std::vector<int> zeros_;
  std::vector<int> scales_;
  std::vector<int> group_of_;
  std::map<std::string, std::pair<NamedShape, std::string>> tensors_;
};

MatrixSource Source(const PackedFormat& format, Size size) {
  MatrixSource source;
  source.name = "a";
  source.rows = source.end = size.rows;
  source.columns = size.columns;
  source.packed = format;
  return source;
}

PackedFormat Awq(int64_t group) { return {.method = PackedMethod::kAwq, .group = group}; }
PackedFormat Gptq(int bits, int64_t group, bool less_one, bool index) {
  return {
      .method = PackedMethod::kGptq, .bits = bits, .group = group, .zeros_less_one = less_one, .group_index = index};
}
PackedFormat Compressed(int bits, int64_t group, bool zeros, bool index = false) {
  return {.method = PackedMethod::kCompressedTensors,
          .bits = bits,
          .group = group,
          .zero_points = zeros,
          .group_index = index};
}

class PackedWeightsTest : public testing::Test {
 protected:
  void ExpectExact(const PackedFormat& format, Size size) {
    SCOPED_TRACE(testing::Message() << ShowPacked(format) << ", " << size.rows << " x " << size.columns);
    const PackedMatrix matrix(format, size, ++seed_);
    matrix.Save(folder_.path());
    const WeightFiles files(folder_.path());
    const HostTensor read = WeightReader(files, {}).Matrix(Source(format, size));
    for (int64_t row = 0; row < size.rows; ++row) {
      for (int64_t column = 0; column < size.columns; ++column) {
        // A code of at most 9 bits with its sign, times a scale of 10, has no rounding in f32.
        ASSERT_EQ(read.view.As<float>()[row * size.columns + column], matrix.Expected(row, column))
            << row << ", " << column;
      }
    }
  }

  /// What is said when `change` has been done to the tensors of a matrix of [5, 12] in groups of 4.
  template <typename Change>
  std::string Refused(const PackedFormat& format, const Change& change) {
    PackedMatrix matrix(format, {5, 12}, ++seed_);
    change(matrix.tensors());
    matrix.Save(folder_.path());
    const WeightFiles files(folder_.path());
    const std::optional<std::string> error = Refusal([&] {
      (void)WeightReader(files, {}).Matrix(Source(format, {5, 12}));
    });
    return error.value_or("accepted");
  }

  ScratchFolder folder_;
  unsigned seed_ = 0;
};

TEST_F(PackedWeightsTest, NumbersAreThoseOfTheirBits) {
  for (const Size size : {Size{8, 32}, {1, 1}, {5, 12}, {67, 33}, {130, 100}}) {
    for (const int64_t group : {0, 4, 32, 128}) {
      ExpectExact(Awq(group), size);
      for (const int bits : {4, 8}) {
        for (const bool flag : {false, true}) {
          ExpectExact(Gptq(bits, group, flag, false), size);
          ExpectExact(Gptq(bits, group, flag, true), size);
          ExpectExact(Compressed(bits, group, flag), size);
          ExpectExact(Compressed(bits, group, flag, true), size);
        }
      }
    }
    PackedFormat one = Compressed(8, 0, false);
    one.one_scale = true;
    ExpectExact(one, size);
  }
}

TEST_F(PackedWeightsTest, TheLargestStoredZeroPointLessOneIsZero) {
  PackedMatrix matrix(Gptq(4, 0, true, false), {8, 8}, 1);
  auto& [zeros, bytes] = matrix.tensors().at("a.qzeros");
  bytes.assign(bytes.size(), '\xff');  // 15 each, which is 0 less one
  auto& codes = matrix.tensors().at("a.qweight").second;
  codes.assign(codes.size(), '\0');
  matrix.Save(folder_.path());
  const WeightFiles files(folder_.path());
  const HostTensor read = WeightReader(files, {}).Matrix(Source(Gptq(4, 0, true, false), {8, 8}));
  for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(read.view.As<float>()[i], 0);
}

TEST_F(PackedWeightsTest, GroupsThatAreNotThereAreRefused) {
  for (const int32_t group : {-1, 3, INT32_MIN, INT32_MAX}) {
    const std::string error = Refused(Gptq(4, 4, true, true), [&](auto& tensors) {
      std::memcpy(tensors.at("a.g_idx").second.data() + 5 * sizeof(group), &group, sizeof(group));
    });
    EXPECT_NE(error.find(fmt::format("tensor a.g_idx: element 5: expected a group from 0 to 2, got {}", group)),
              std::string::npos)
        << error;
  }
}

TEST_F(PackedWeightsTest, GroupsOfMinusOneEverywhereAreThoseOfTheOrder) {
  const PackedFormat format = Compressed(4, 4, false);
  PackedMatrix matrix(format, {5, 12}, 1);
  matrix.tensors()["a.weight_g_idx"] = {{"a.weight_g_idx", {12}, "I32"}, std::string(12 * sizeof(int32_t), '\xff')};
  matrix.Save(folder_.path());
  const WeightFiles files(folder_.path());
  const PackedFormat stored = PackedAsStored(files, format, "a");
  EXPECT_TRUE(stored.group_index);
  const HostTensor read = WeightReader(files, {}).Matrix(Source(stored, {5, 12}));
  for (int64_t i = 0; i < 60; ++i) EXPECT_EQ(read.view.As<float>()[i], matrix.Expected(i / 12, i % 12));
}

TEST_F(PackedWeightsTest, TensorsThatDoNotFitAreNamed) {
  const std::vector<PackedFormat> formats = {Awq(4), Gptq(4, 4, true, true), Compressed(4, 4, true, true)};
  for (const PackedFormat& format : formats) {
    for (const NamedShape& tensor : PackedTensors(format, "a", 5, 12)) {
      const std::string name = "tensor " + tensor.name;
      const std::string missing = Refused(format, [&](auto& tensors) { tensors.erase(tensor.name); });
      EXPECT_NE(missing.find(name + " is missing"), std::string::npos) << missing;
      const std::string reshaped = Refused(format, [&](auto& tensors) {
        auto& [shape, bytes] = tensors.at(tensor.name);
        shape.shape = {shape.shape.elements(), 1, 1};
      });
      EXPECT_NE(reshaped.find(name + ": expected shape"), std::string::npos) << reshaped;
      const std::string retyped = Refused(format, [&](auto& tensors) {
        auto& dtype = tensors.at(tensor.name).first.dtype;
        dtype = dtype == "I64" ? "U64" : "U32";
      });
      EXPECT_NE(retyped.find(name + ": expected dtype"), std::string::npos) << retyped;
    }
  }
}

TEST_F(PackedWeightsTest, TheShapeOfAnotherMatrixIsRefused) {
  const std::string error =
      Refused(Compressed(4, 4, false), [](auto& tensors) { tensors.at("a.weight_shape").second[0] = 6; });
  EXPECT_NE(error.find("tensor a.weight_shape: expected [5, 12], got [6, 12]"), std::string::npos) << error;
}

TEST_F(PackedWeightsTest, FilesSayWhetherInputsAreReordered) {
  PackedFormat format = Gptq(4, 4, true, false);
  PackedMatrix(format, {5, 12}, 1).Save(folder_.path());
  EXPECT_FALSE(PackedAsStored(WeightFiles(folder_.path()), format, "a").group_index);
  format.needs_group_index = true;
  EXPECT_TRUE(PackedAsStored(WeightFiles(folder_.path()), format, "a").group_index);
}

TEST_F(PackedWeightsTest, DescriptionsCountTheNumbersThatArePacked) {
  const ModelInfo info = DescribeModel(GoldenFolder() / "llama-awq-f32");
  EXPECT_EQ(info.packed, "awq, 4 bits, groups of 32");
  const int64_t attention = 2 * 48 * 48 + 2 * 16 * 48;  // o_proj among them, which is plain
  EXPECT_EQ(info.weights.parameters, 2 * (attention + 3 * 48 * 96 + 2 * 48) + 2 * 53 * 48 + 48);
  EXPECT_TRUE(info.ignored.empty());
}

}  // namespace
}  // namespace runahead
