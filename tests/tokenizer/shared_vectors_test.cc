// Real vocabularies: the shared vectors, round trips and speed of long texts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "base/source_dir.h"
#include "model_folder.h"

namespace runahead::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

std::filesystem::path Assets() {
  const char* folder = std::getenv("RUNAHEAD_ASSETS");
  return folder != nullptr ? std::filesystem::path(folder) : std::filesystem::path(SourceDir()) / "../shared/assets";
}

/// The unpacked tokenizers.tar.xz, once for all tests; an empty path where it cannot be had.
const std::filesystem::path& Tokenizers() {
  static const TemporaryFolder folder;
  static const std::filesystem::path unpacked = [] {
    const std::filesystem::path archive = Assets() / "tokenizers.tar.xz";
    if (!std::filesystem::exists(archive)) return std::filesystem::path();
    const std::string command = "tar xf '" + archive.string() + "' -C '" + folder.path().string() + "'";
    return std::system(command.c_str()) == 0 ? folder.path() / "tokenizers" : std::filesystem::path();
  }();
  return unpacked;
}

std::vector<std::string> SplitAt(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t at = text.find(separator); at != std::string::npos; at = text.find(separator, begin)) {
    parts.push_back(text.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::string TestName(std::string tokenizer) {
  std::replace(tokenizer.begin(), tokenizer.end(), '.', '_');
  return tokenizer;
}

struct Vectors {
  const char* vectors;
  const char* tokenizer;
};

class SharedVectors : public ::testing::TestWithParam<Vectors> {};

TEST_P(SharedVectors, IdsAreExactAndDecodeToTheText) {
  const std::filesystem::path folder = Assets() / "tokenizer_vectors";
  const std::string name = GetParam().vectors;
  if (Tokenizers().empty() || !std::filesystem::exists(folder)) GTEST_SKIP() << "no shared assets";
  const Tokenizer tokenizer = Tokenizer::Load(Tokenizers() / GetParam().tokenizer);
  const auto texts = SplitAt(ReadFile(folder / (name + ".inp")), "\n__ggml_vocab_test__\n");
  const auto lines = SplitAt(ReadFile(folder / (name + ".out")), "\n");
  ASSERT_GT(texts.size(), 40U);
  ASSERT_GE(lines.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    Ids wanted;
    std::istringstream line(lines[i]);
    for (int32_t id = 0; line >> id;) wanted.push_back(id);
    const Ids ids = tokenizer.Encode(texts[i], false);
    EXPECT_EQ(ids, wanted) << Json(texts[i]);
    const std::string normal = tokenizer.Decode(ids);
    EXPECT_EQ(tokenizer.Encode(normal, false), ids) << Json(texts[i]);
    std::string streamed;
    for (const std::string& text : Stream(tokenizer, ids)) streamed += text;
    EXPECT_EQ(streamed, normal);
  }
}

INSTANTIATE_TEST_SUITE_P(All, SharedVectors,
                         ::testing::Values(Vectors{"llama-spm", "llama2"}, Vectors{"llama-bpe", "llama3.1"},
                                           Vectors{"falcon", "falcon"}, Vectors{"qwen2", "qwen2.5"}),
                         [](const auto& vectors) { return TestName(vectors.param.tokenizer); });

class SharedTokenizers : public ::testing::TestWithParam<const char*> {};

TEST_P(SharedTokenizers, LongTextsSurvive) {
  if (Tokenizers().empty()) GTEST_SKIP() << "no shared assets";
  const Tokenizer tokenizer = Tokenizer::Load(Tokenizers() / GetParam());
  std::string text;
  for (int i = 0; i < 4000; ++i)
    text += "Line " + std::to_string(i * 7919) + ": the ship's log, “überall” 日本 🙂\n";
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text)), text);
  for (const char* unit : {"a", "7", " ", "\n", "<", "日", "=-", "\xC3\xA9"}) {
    std::string run;
    while (run.size() < 100000) run += unit;
    EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(run)), run) << "many of " << Json(unit);
  }
}

INSTANTIATE_TEST_SUITE_P(All, SharedTokenizers,
                         ::testing::Values("llama2", "llama3.1", "falcon", "qwen2.5", "mistral_v1"),
                         [](const auto& tokenizer) { return TestName(tokenizer.param); });

TEST(SharedTokenizers, SpecialIdsOfRealModels) {
  if (Tokenizers().empty()) GTEST_SKIP() << "no shared assets";
  const Tokenizer llama2 = Tokenizer::Load(Tokenizers() / "llama2");
  EXPECT_EQ(llama2.Encode("Hello"), (Ids{1, 15043}));
  EXPECT_EQ(llama2.bos_id(), 1);
  EXPECT_EQ(llama2.eos_id(), 2);
  EXPECT_EQ(llama2.vocab_size(), 32000);
  const Tokenizer llama3 = Tokenizer::Load(Tokenizers() / "llama3.1");
  EXPECT_EQ(llama3.Encode("Hello"), (Ids{128000, 9906}));
  EXPECT_EQ(llama3.bos_id(), 128000);
  EXPECT_EQ(llama3.TokenId("<|eot_id|>"), 128009);
  EXPECT_EQ(llama3.Encode("<|eot_id|>", false), Ids{128009});
  EXPECT_EQ(Tokenizer::Load(Tokenizers() / "falcon").Encode("Hello"), Ids{9856});
}

TEST(SharedTokenizers, Stories260k) {
  const std::filesystem::path folder = Assets() / "stories260k";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no shared assets";
  const Json golden = LoadJson(folder / "golden.json");
  const Tokenizer tokenizer = Tokenizer::Load(folder);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.vocab_size(), 512);
  const Ids ids = golden["greedy_ids"].get<Ids>();
  const std::string text = tokenizer.Decode(ids);
  EXPECT_GT(text.size(), 400U);
  EXPECT_EQ(golden["expected_text_200_steps"].get<std::string>().substr(0, text.size()), text);
}

}  // namespace
}  // namespace runahead::tokenizer
