// Tensors that are not stored as they are used: FP8 and int8 with scales, F64, transposed matrices, heads of pairs,
// unit rows.
#include "model/weight_reader.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/model/model_testing.h"

namespace runahead {
namespace {

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<float> Values(const HostTensor& tensor) {
  std::vector<float> values;
  Dispatch(tensor.view.dtype(), [&](auto zero) {
    const auto* from = tensor.view.As<decltype(zero)>();
    for (int64_t i = 0; i < tensor.view.shape().elements(); ++i) values.push_back(static_cast<float>(from[i]));
  });
  return values;
}

MatrixSource Source(int64_t rows, int64_t columns) {
  MatrixSource source;
  source.name = "a";
  source.rows = source.end = rows;
  source.columns = columns;
  return source;
}

class WeightReaderTest : public testing::Test {
 protected:
  void Write(const std::string& header, const std::string& data) {
    WriteFile(folder_ / "model.safetensors", SafetensorsBytes(header, data));
  }
  HostTensor Matrix(const MatrixSource& source) {
    files_.emplace(folder_.path());
    return WeightReader(*files_, {2, 2}).Matrix(source);
  }

  ScratchFolder folder_;
  std::optional<WeightFiles> files_;
};

// 0x38 is 1, 0xc0 is -2, 0x7e is 448, 0x01 is 2^-9 (Micikevicius et al. 2022, table 1).
const std::string kFp8 = "\x38\xc0\x7e\x01\x38\x38";

TEST_F(WeightReaderTest, Fp8IsTimesTheScaleOfItsBlock) {
  Write(R"({"a.weight":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[0,6]},
            "a.weight_scale_inv":{"dtype":"F32","shape":[1,2],"data_offsets":[6,14]}})",
        kFp8 + BytesOf<float>({2, 0.5F}));
  EXPECT_EQ(Values(Matrix(Source(2, 3))), (std::vector<float>{2, -4, 224, 0x1p-8F, 2, 0.5F}));
  EXPECT_TRUE(Matrix(Source(2, 3)).scales.empty()) << "rows have several";
}

TEST_F(WeightReaderTest, Fp8MayHaveOneScaleOrOneForEachRow) {
  Write(R"({"a.weight":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[0,6]},
            "a.weight_scale":{"dtype":"F32","shape":[],"data_offsets":[6,10]}})",
        kFp8 + BytesOf<float>({2}));
  EXPECT_EQ(Values(Matrix(Source(2, 3))), (std::vector<float>{2, -4, 896, 0x1p-8F, 2, 2}));
  EXPECT_EQ(Matrix(Source(2, 3)).scales, (std::vector<float>{2, 2}));
  Write(R"({"a.weight":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[0,6]},
            "a.weight_scale":{"dtype":"F32","shape":[2,1],"data_offsets":[6,14]}})",
        kFp8 + BytesOf<float>({1, 4}));
  EXPECT_EQ(Values(Matrix(Source(2, 3))), (std::vector<float>{1, -2, 448, 0x1p-7F, 4, 4}));
  EXPECT_EQ(Matrix(Source(2, 3)).scales, (std::vector<float>{1, 4}));
}

TEST_F(WeightReaderTest, Fp8WithoutFittingScalesIsRefused) {
  Write(R"({"a.weight":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[0,6]}})", kFp8);
  EXPECT_NE(Refusal([&] { (void)Matrix(Source(2, 3)); })->find("a.weight_scale"), std::string::npos);
  Write(R"({"a.weight":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[0,6]},
            "a.weight_scale":{"dtype":"F32","shape":[3],"data_offsets":[6,18]}})",
        kFp8 + BytesOf<float>({1, 4, 5}));
  EXPECT_NE(Refusal([&] { (void)Matrix(Source(2, 3)); })->find("[3]"), std::string::npos);
}

TEST_F(WeightReaderTest, Int8IsTimesTheScaleOfItsRow) {
  Write(R"({"a.weight":{"dtype":"I8","shape":[2,3],"data_offsets":[0,6]},
            "a.weight_scale":{"dtype":"F32","shape":[2,1],"data_offsets":[6,14]}})",
        BytesOf<int8_t>({-128, -1, 0, 1, 64, 127}) + BytesOf<float>({0.5F, 3}));
  EXPECT_EQ(Values(Matrix(Source(2, 3))), (std::vector<float>{-64, -0.5F, 0, 3, 192, 381}));
  EXPECT_TRUE(Matrix(Source(2, 3)).scales.empty()) << "which are of e4m3 alone";
}

TEST_F(WeightReaderTest, Int8WithoutScalesIsRefused) {
  Write(R"({"a.weight":{"dtype":"I8","shape":[2,3],"data_offsets":[0,6]}})", "abcdef");
  const std::optional<std::string> error = Refusal([&] { (void)Matrix(Source(2, 3)); });
  EXPECT_NE(error.value_or("").find("tensor a.weight: it is I8, and there is no a.weight_scale"), std::string::npos)
      << error.value_or("accepted");
}

TEST_F(WeightReaderTest, F64BecomesF32) {
  Write(R"({"a.weight":{"dtype":"F64","shape":[1,2],"data_offsets":[0,16]}})", BytesOf<double>({0.1, -3}));
  EXPECT_EQ(Values(Matrix(Source(1, 2))), (std::vector<float>{0.1F, -3}));
}

TEST_F(WeightReaderTest, RowsAreArrangedAsAsked) {
  const std::string header = R"({"a.weight":{"dtype":"F32","shape":[6,1],"data_offsets":[0,24]}})";
  Write(header, BytesOf<float>({0, 1, 2, 3, 4, 5}));
  MatrixSource source = Source(6, 1);
  EXPECT_EQ(Values(Matrix(source)), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  source.paired = {6, 4};
  EXPECT_EQ(Values(Matrix(source)), (std::vector<float>{0, 2, 1, 3, 4, 5}));
  source = Source(1, 6);
  source.transposed = true;
  EXPECT_EQ(Values(Matrix(source)), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  Write(R"({"a.weight":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]}})", BytesOf<float>({3, 4, 0, 2, 5, 12}));
  source = Source(3, 2);
  source.unit_rows = true;
  EXPECT_EQ(Values(Matrix(source)), (std::vector<float>{3.0F / 5, 4.0F / 5, 0, 1, 5.0F / 13, 12.0F / 13}));
  source = Source(2, 3);
  source.transposed = true;
  EXPECT_EQ(Values(Matrix(source)), (std::vector<float>{3, 0, 5, 4, 2, 12}));
}

TEST_F(WeightReaderTest, GitLfsPointersAreSaidToBeSuch) {
  WriteFile(folder_ / "model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  EXPECT_NE(Refusal([&] { (void)Matrix(Source(2, 3)); })->find("Git-LFS pointer"), std::string::npos);
  std::filesystem::remove(folder_ / "model.safetensors");
  WriteFile(folder_ / "pytorch_model.bin", "x");
  EXPECT_NE(Refusal([&] { (void)Matrix(Source(2, 3)); })->find("pytorch_model.bin is not supported"),
            std::string::npos);
}

}  // namespace
}  // namespace runahead
