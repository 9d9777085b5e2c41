#include "runahead/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "model_folder.h"
#include "runahead/error.h"
#include "tokenizer/vocab.h"

namespace runahead::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

std::string ErrorOf(const std::string& tokenizer_json) {
  try {
    LoadText(tokenizer_json);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Tokenizer, InvalidUtf8IsNamedWithItsPlace) {
  const Tokenizer tokenizer = LoadSmall(SmallTokenizer({"a"}));
  try {
    static_cast<void>(tokenizer.Encode("aa\xF0\x28"));
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "the text is not UTF-8: byte 2 (0xF0) does not start a UTF-8 character");
  }
}

TEST(Tokenizer, LooksTokensUp) {
  const Tokenizer tokenizer = LoadSmall(SmallTokenizer({"a", "b"}));
  EXPECT_EQ(tokenizer.TokenId("b"), 1);
  EXPECT_EQ(tokenizer.TokenId("c"), std::nullopt);
  EXPECT_EQ(tokenizer.bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer.eos_id(), std::nullopt);
  EXPECT_EQ(tokenizer.vocab_size(), 2);
}

TEST(Tokenizer, EmptyVocabulary) {
  const Tokenizer tokenizer = LoadSmall(SmallTokenizer({}));
  EXPECT_EQ(tokenizer.Encode("abc"), Ids{});
  EXPECT_EQ(tokenizer.Decode(Ids{}), "");
  EXPECT_EQ(tokenizer.vocab_size(), 0);
}

TEST(Tokenizer, ZeroBytesArePlainCharacters) {
  Json file = SmallTokenizer({"a"});
  file["model"]["vocab"][std::string("\0", 1)] = 1;
  EXPECT_EQ(LoadSmall(file).Encode(std::string("a\0a", 3)), (Ids{0, 1, 0}));
}

TEST(Tokenizer, FirstWordIsCutByItself) {
  Json file = SmallTokenizer({"a", "_|a", "_"});
  file["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "WhitespaceSplit"}},
        {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "first"}, {"split", false}}}}};
  const Tokenizer tokenizer = LoadSmall(file);
  EXPECT_EQ(tokenizer.Encode("a a aa a"), (Ids{1, 0, 0, 0, 0}));
  EXPECT_EQ(tokenizer.Encode(" a a"), (Ids{0, 0}));
}

TEST(Tokenizer, ManyThreadsShareOne) {
  const Tokenizer tokenizer = LoadSmall(SmallTokenizer({"a", "b", "a|b", "ab|ab"}));
  const Ids wanted(1000, 3);
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "ab";
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) {
    threads.emplace_back([&tokenizer, &text, &result] { result = tokenizer.Encode(text); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, wanted);
}

TEST(Tokenizer, MissingAndBrokenFiles) {
  const TemporaryFolder folder;
  EXPECT_THROW(Tokenizer::Load(folder.path()), Error);
  EXPECT_THROW(Tokenizer::Load(folder.path() / "none"), Error);
  EXPECT_NE(ErrorOf(""), "");
  EXPECT_NE(ErrorOf("{"), "");
  EXPECT_NE(ErrorOf("[]"), "");
  EXPECT_NE(ErrorOf("{}"), "");
  EXPECT_NE(ErrorOf(R"({"model": {"type": "BPE"}})"), "");
  EXPECT_NE(ErrorOf(std::string(100000, '[')), "");
  EXPECT_NE(ErrorOf(R"({"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}})"), "");
}

TEST(Tokenizer, OtherModelsAreRefusedByName) {
  const std::string message = ErrorOf(R"({"model": {"type": "Unigram", "vocab": []}})");
  EXPECT_NE(message.find("tokenizer.json: model: type"), std::string::npos) << message;
  EXPECT_NE(message.find("\"Unigram\""), std::string::npos) << message;
  EXPECT_EQ(ErrorOf(R"({"model": {"vocab": {"a": 0}, "merges": []}})"), "") << "older files leave the type out";
}

// What could make a short text or a small file take much memory.
TEST(Tokenizer, FilesThatBlowUpAreRefused) {
  const auto refused = [](const char* part, const Json& component) {
    Json file = SmallTokenizer({"a"});
    file[part] = component;
    const std::string message = ErrorOf(file.dump());
    EXPECT_NE(message.find(std::string(part) + ": a text may become too much longer"), std::string::npos) << message;
  };
  const Json replace = {{"type", "Replace"}, {"pattern", {{"Regex", "."}}}, {"content", std::string(20, 'x')}};
  refused("normalizer", {{"type", "Sequence"}, {"normalizers", {replace, replace}}});
  refused("normalizer", {{"type", "Prepend"}, {"prepend", std::string(100000, 'x')}});
  refused("decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, replace}}});
  const Json bytes = {{"type", "ByteLevel"}, {"use_regex", false}, {"add_prefix_space", false}};
  refused("pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", std::vector<Json>(9, bytes)}});
  Json allowed = SmallTokenizer({"a"});
  allowed["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFKD"}}, replace}}};
  EXPECT_EQ(ErrorOf(allowed.dump()), "");
  Json far = SmallTokenizer({});
  far["model"]["vocab"] = {{"a", kMaxTokenId}};
  EXPECT_EQ(ErrorOf(far.dump()), "");
  far["model"]["vocab"] = {{"a", kMaxTokenId + 1}};
  EXPECT_NE(ErrorOf(far.dump()).find("expected an id from 0 to 1048575"), std::string::npos);
}

// Every cut and many single-byte changes of a full file: an error or a tokenizer, never a crash.
TEST(Tokenizer, DamagedFilesDoNoHarm) {
  Json file = SmallTokenizer({"a", "b", "▁", "a|b", "<unk>"});
  file["added_tokens"] = {AddedEntry(4, "<unk>"), AddedEntry(5, "<s>")};
  file["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", "▁"}};
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
  file["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
  file["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"a", 0}}, {"sep", {"b", 1}}};
  const std::string good = file.dump();
  ASSERT_EQ(LoadText(good).Encode("a b"), (Ids{0, 2, 0, 2, 1, 1}));
  std::mt19937 random(13);
  for (int round = 0; round < 1500; ++round) {
    std::string bad = good;
    const size_t at = random() % bad.size();
    switch (random() % 3) {
      case 0:
        bad.resize(at);
        break;
      case 1:
        bad[at] = static_cast<char>(random());
        break;
      default:
        bad.erase(at, 1 + random() % 4);
    }
    try {
      const Tokenizer tokenizer = LoadText(bad);
      const Ids ids = tokenizer.Encode("ab <s>é \n a");
      static_cast<void>(tokenizer.Decode(ids));
    } catch (const Error& error) {
      EXPECT_STRNE(error.what(), "");
    }
  }
}

}  // namespace
}  // namespace runahead::tokenizer
