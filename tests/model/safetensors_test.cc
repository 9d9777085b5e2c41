// Reading safetensors: good files, and files that lie.
#include "model/safetensors.h"

#include <gtest/gtest.h>

#include "tests/model/model_testing.h"

namespace runahead {
namespace {

std::string Floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::vector<float> Values(const HostTensor& tensor) {
  const auto* data = tensor.view.As<float>();
  return {data, data + tensor.view.shape().elements()};
}

class SafetensorsTest : public testing::Test {
 protected:
  std::filesystem::path Write(const std::string& bytes, const std::string& name = "model.safetensors") {
    WriteFile(folder_ / name, bytes);
    return folder_ / name;
  }

  ScratchFolder folder_;
};

TEST_F(SafetensorsTest, ReadsTensorsWhereTheyLie) {
  Write(SafetensorsBytes(R"({"__metadata__":{"format":"pt"},)"
                         R"("b":{"dtype":"F32","shape":[2,2],"data_offsets":[4,20]},)"
                         R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"
                         "   ",
                         Floats({1, 2, 3, 4, 5})));
  const WeightFiles files(folder_.path());
  EXPECT_EQ(Values(files.Read("a", {1})), (std::vector<float>{1}));
  EXPECT_EQ(Values(files.Read("b", {2, 2})), (std::vector<float>{2, 3, 4, 5}));
  EXPECT_TRUE(files.Has("a"));
  EXPECT_FALSE(files.Has("__metadata__"));
  EXPECT_FALSE(files.Has("c"));
}

TEST_F(SafetensorsTest, CopiesTensorsThatAreNotAligned) {
  for (size_t padding = 0; padding < 8; ++padding) {
    const std::string header =
        R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})" + std::string(padding, ' ');
    Write(SafetensorsBytes(header, Floats({1.5, -2, 1e30F})));
    const WeightFiles files(folder_.path());
    const HostTensor tensor = files.Read("a", {3});
    EXPECT_EQ(Values(tensor), (std::vector<float>{1.5, -2, 1e30F}));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.view.data()) % sizeof(float), 0U);
    EXPECT_EQ(tensor.copy.empty(), (8 + header.size()) % sizeof(float) == 0);
  }
}

TEST_F(SafetensorsTest, AcceptsEmptyTensors) {
  Write(SafetensorsBytes(R"({"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                         R"("b":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
                         Floats({1})));
  const WeightFiles files(folder_.path());
  EXPECT_EQ(files.Read("a", {0, 7}).view.shape().elements(), 0);
}

struct BadFile {
  std::string name;
  std::string bytes;
  std::vector<std::string> says;  // texts that the error contains
};

std::string OneTensor(const std::string& entry, size_t data_bytes) {
  return SafetensorsBytes(R"({"w":)" + entry + "}", std::string(data_bytes, 'x'));
}

std::vector<BadFile> BadFiles() {
  const std::string f32 = R"({"dtype":"F32","shape":[1],"data_offsets":)";
  const auto two = [](const std::string& first, const std::string& second) {
    return SafetensorsBytes(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
                                R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}",
                            std::string(8, 'x'));
  };
  return {
      {"Empty", "", {"0 bytes"}},
      {"TooShortForALength", "abc", {"3 bytes"}},
      {"HeaderBeyondFile", std::string("\x10\0\0\0\0\0\0\0{}", 10), {"header length 16", "10 bytes"}},
      {"HeaderOverTheLimit", std::string(8, '\xff') + "{}", {"header length 18446744073709551615"}},
      {"HeaderIsNotJson", SafetensorsBytes("{\"a\":", ""), {"not valid JSON"}},
      {"HeaderIsNoObject", SafetensorsBytes("[1]", ""), {"expected a JSON object", "[1]"}},
      {"HeaderIsTooDeep", SafetensorsBytes("{\"a\":" + std::string(1000, '['), ""), {"nested deeper"}},
      {"HeaderIsNotUtf8", SafetensorsBytes("{\"\xff\":1}", ""), {"not valid JSON"}},
      {"DeepHeader", SafetensorsBytes(std::string(1000, '['), ""), {"nested deeper than 64 levels"}},
      {"DeepEntry", OneTensor(std::string(1000, '['), 0), {"nested deeper than 64 levels"}},
      {"DuplicateField",
       OneTensor(R"({"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]})", 4),
       {"\"shape\" appears twice"}},
      {"DuplicateName", SafetensorsBytes("{\"a\":1,\"a\":2}", ""), {"\"a\" appears twice"}},
      {"EntryIsNoObject", OneTensor("7", 0), {"tensor w", "7"}},
      {"NoDType", OneTensor(R"({"shape":[1],"data_offsets":[0,4]})", 4), {"tensor w", "dtype"}},
      {"NoShape", OneTensor(R"({"dtype":"F32","data_offsets":[0,4]})", 4), {"tensor w", "shape"}},
      {"NoOffsets", OneTensor(R"({"dtype":"F32","shape":[1]})", 4), {"tensor w", "data_offsets"}},
      {"OneOffset", OneTensor(f32 + "[0]}", 4), {"tensor w", "data_offsets", "[0]"}},
      {"NegativeOffset", OneTensor(f32 + "[-4,0]}", 4), {"tensor w", "data_offsets", "-4"}},
      {"FractionalOffset", OneTensor(f32 + "[0,4.0]}", 4), {"tensor w", "data_offsets", "4.0"}},
      {"TextOffset", OneTensor(f32 + "[0,\"4\"]}", 4), {"tensor w", "data_offsets"}},
      {"OffsetsBackwards", OneTensor(f32 + "[4,0]}", 4), {"tensor w", "data_offsets", "[4,0]"}},
      {"OffsetBeyondFile", OneTensor(f32 + "[0,8]}", 4), {"tensor w", "[0, 8]", "4 bytes"}},
      {"HugeOffset", OneTensor(f32 + "[0,18446744073709551615]}", 4), {"tensor w", "18446744073709551615"}},
      {"NearlyHugeOffset", OneTensor(f32 + "[0,9223372036854775807]}", 4), {"tensor w", "9223372036854775807"}},
      {"NegativeExtent", OneTensor(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4), {"shape", "[-1]"}},
      {"ShapeOverflows",
       OneTensor(R"({"dtype":"F32","shape":[281474976710656,281474976710656],"data_offsets":[0,4]})", 4),
       {"tensor w", "shape", "overflows"}},
      {"ShapeOverflowsToItsSize",  // 2^62 * 4 bytes is 2^64, which would wrap to 0
       OneTensor(R"({"dtype":"F32","shape":[2147483648,2147483648],"data_offsets":[0,0]})", 0),
       {"tensor w", "shape", "overflows"}},
      {"HugeExtent",
       OneTensor(R"({"dtype":"F32","shape":[1000000000000000000],"data_offsets":[0,4]})", 4),
       {"shape"}},
      {"ManyDimensions",
       OneTensor(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})", 4),
       {"shape"}},
      {"SizeDoesNotMatch",
       OneTensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4),
       {"tensor w", "[2] of F32", "8 bytes", "hold 4"}},
      {"Overlap", two("[0,4]", "[3,7]"), {"tensor b", "overlapping"}},
      {"SameBytesTwice", two("[0,4]", "[0,4]"), {"overlapping"}},
      {"Gap", two("[0,4]", "[5,9]"), {"tensor b", "[5, 9]"}},
      {"GapInside",
       SafetensorsBytes(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", "1234"),
       {"tensor a", "gap"}},
      {"TrailingBytes", OneTensor(f32 + "[0,4]}", 6), {"2 bytes follow"}},
      {"LongName", SafetensorsBytes("{\"" + std::string(5000, 'n') + "\":1}", ""), {"nnn..."}},
  };
}

class BadSafetensorsTest : public SafetensorsTest, public testing::WithParamInterface<BadFile> {};

TEST_P(BadSafetensorsTest, IsRefusedByName) {
  const std::filesystem::path path = Write(GetParam().bytes);
  const std::optional<std::string> error = Refusal([&] { SafetensorsFile file(path); });
  ASSERT_TRUE(error.has_value());
  EXPECT_TRUE(error->starts_with(path.string())) << *error;
  EXPECT_EQ(error->find('\n'), std::string::npos);
  EXPECT_LT(error->size(), 500U);
  for (const std::string& part : GetParam().says) EXPECT_NE(error->find(part), std::string::npos) << *error;
}

INSTANTIATE_TEST_SUITE_P(Files, BadSafetensorsTest, testing::ValuesIn(BadFiles()),
                         [](const auto& instance) { return instance.param.name; });

TEST_F(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string whole = OneTensor(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})", 16);
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::filesystem::path path = Write(whole.substr(0, size));
    EXPECT_TRUE(Refusal([&] { SafetensorsFile file(path); }).has_value()) << size << " bytes";
  }
}

TEST_F(SafetensorsTest, FindSaysWhatIsWrong) {
  Write(SafetensorsBytes(R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                         R"("q":{"dtype":"U16","shape":[2],"data_offsets":[8,12]},)"
                         R"("n":{"dtype":"NF3","shape":[99],"data_offsets":[12,16]}})",
                         std::string(16, 'x')));
  const WeightFiles files(folder_.path());  // a dtype nobody needs harms nobody
  const auto expect = [&](const std::string& name, const Shape& shape, const std::vector<std::string>& says) {
    const std::optional<std::string> error = Refusal([&] { (void)files.Read(name, shape); });
    ASSERT_TRUE(error.has_value()) << name;
    for (const std::string& part : says) EXPECT_NE(error->find(part), std::string::npos) << *error;
  };
  expect("a", {1, 2}, {"model.safetensors", "tensor a", "expected shape [1, 2]", "got [2, 1]"});
  expect("a", {2}, {"expected shape [2]", "got [2, 1]"});
  expect("q", {2}, {"tensor q", "U16"});
  expect("n", {99}, {"tensor n", "NF3"});
  expect("missing.weight", {4, 4}, {"missing.weight", "[4, 4]"});
}

TEST_F(SafetensorsTest, FolderWithoutWeightsIsRefused) {
  const std::optional<std::string> error = Refusal([&] { WeightFiles files(folder_.path()); });
  ASSERT_TRUE(error.has_value());
  EXPECT_NE(error->find("model.safetensors.index.json"), std::string::npos) << *error;
}

class ShardsTest : public SafetensorsTest {
 protected:
  ShardsTest() {
    Write(OneTensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 4), "one.safetensors");
    Write(SafetensorsBytes(R"({"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", Floats({7})),
          "two.safetensors");
  }

  std::optional<std::string> Open(const std::string& index) {
    Write(index, "model.safetensors.index.json");
    return Refusal([&] { WeightFiles files(folder_.path()); });
  }
};

TEST_F(ShardsTest, TensorsComeFromTheirShards) {
  ASSERT_EQ(Open(R"({"metadata":{"total_size":8},"weight_map":{"w":"one.safetensors","v":"two.safetensors"}})"),
            std::nullopt);
  const WeightFiles files(folder_.path());
  EXPECT_EQ(files.files(), 2);
  EXPECT_EQ(Values(files.Read("v", {1})), (std::vector<float>{7}));
}

// The caches of model hubs are folders of links to files elsewhere.
TEST_F(ShardsTest, ShardsMayBeLinks) {
  const std::filesystem::path blobs = folder_.path() / "blobs";
  const std::filesystem::path snapshot = folder_.path() / "snapshot";
  std::filesystem::create_directories(blobs);
  std::filesystem::create_directories(snapshot);
  std::filesystem::rename(folder_.path() / "one.safetensors", blobs / "3f2a");
  std::filesystem::create_symlink("../blobs/3f2a", snapshot / "one.safetensors");
  WriteFile(snapshot / "model.safetensors.index.json", R"({"weight_map":{"w":"one.safetensors"}})");
  EXPECT_EQ(WeightFiles(snapshot).files(), 1);
}

// An index that was not written anew with its shards harms only what is missing.
TEST_F(ShardsTest, AnIndexMayBeWrongAboutWhatNobodyNeeds) {
  ASSERT_EQ(Open(R"({"weight_map":{"w":"one.safetensors","stale":"one.safetensors","gone":"three.safetensors",
                     "long":")" +
                 std::string(3000, 'n') + R"("}})"),
            std::nullopt);
  const WeightFiles files(folder_.path());
  EXPECT_EQ(files.files(), 1);
  EXPECT_EQ(files.Read("w", {1}).view.shape()[0], 1);
  EXPECT_FALSE(files.Has("stale"));
  const auto refusal = [&](const char* name) {
    return Refusal([&] { static_cast<void>(files.Read(name, {1})); }).value_or("was read");
  };
  EXPECT_NE(refusal("stale").find("one.safetensors: tensor stale is missing, though"), std::string::npos);
  EXPECT_NE(refusal("gone").find("three.safetensors: the shard that"), std::string::npos) << refusal("gone");
  EXPECT_NE(refusal("long").find("nnn"), std::string::npos);
  EXPECT_LT(refusal("long").size(), 700U);
}

TEST_F(ShardsTest, ATensorIsFoundInWhicheverShardHoldsIt) {
  ASSERT_EQ(Open(R"({"weight_map":{"v":"one.safetensors","other":"two.safetensors"}})"), std::nullopt);
  const WeightFiles files(folder_.path());
  EXPECT_EQ(Values(files.Read("v", {1})), (std::vector<float>{7})) << "the index has it in another one";
  EXPECT_TRUE(files.Has("w")) << "the index does not name it";
}

TEST_F(ShardsTest, BadIndexesAreRefused) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({})", "weight_map"},
      {R"({"weight_map":[]})", "weight_map"},
      {R"({"weight_map":{"w":3}})", "got 3"},
      {R"({"weight_map":{"w":""}})", "got \"\""},
      {R"({"weight_map":{"w":".."}})", "got \"..\""},
      {R"({"weight_map":{"w":"../one.safetensors"}})", "../one.safetensors"},
      {R"({"weight_map":{"w":"sub/../../one.safetensors"}})", "sub/../../one.safetensors"},
      {R"({"weight_map":{"w":"/etc/passwd"}})", "/etc/passwd"},
      {R"({"weight_map":{"w":"one.safetensors\u0000x"}})", "model's folder"},
      {R"({"weight_map":)", "not valid JSON"},
  };
  for (const auto& [index, says] : cases) {
    const std::optional<std::string> error = Open(index);
    ASSERT_TRUE(error.has_value()) << index;
    EXPECT_NE(error->find(says), std::string::npos) << *error;
    EXPECT_LT(error->size(), 700U);
  }
}

TEST_F(SafetensorsTest, TypesOfGgufFilesAreOfGgufFilesOnly) {
  const std::string header = R"({"w":{"dtype":"Q4_0","shape":[1,32],"data_offsets":[0,18]}})";
  WriteFile(folder_ / "model.safetensors", SafetensorsBytes(header, std::string(18, 'x')));
  const std::optional<std::string> error = Refusal([&] {
    (void)WeightFiles(folder_.path()).Find("w", Shape{1, 32});
  });
  ASSERT_TRUE(error.has_value());
  EXPECT_NE(error->find("got Q4_0"), std::string::npos) << *error;
}

}  // namespace
}  // namespace runahead
