#include "tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include "model_folder.h"
#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

// "a" is 0, " " is 1, "x" is 2; the added token "<t>" is 3.
Tokenizer WithToken(const Json& flags) {
  Json file = SmallTokenizer({"a", " ", "x"});
  file["added_tokens"] = {AddedEntry(3, "<t>")};
  file["added_tokens"][0].update(flags);
  return LoadSmall(file);
}

TEST(AddedTokens, AreFoundAnywhere) {
  const Tokenizer tokenizer = WithToken(Json::object());
  EXPECT_EQ(tokenizer.Encode("a<t>x"), (Ids{0, 3, 2}));
  EXPECT_EQ(tokenizer.Encode("<t><t>"), (Ids{3, 3}));
  EXPECT_EQ(tokenizer.Encode("a <t> x"), (Ids{0, 1, 3, 1, 2}));
  EXPECT_EQ(tokenizer.Encode(""), Ids{});
  EXPECT_EQ(tokenizer.TokenId("<t>"), 3);
  EXPECT_EQ(tokenizer.vocab_size(), 4);
}

TEST(AddedTokens, StripTakesSpacesAlong) {
  EXPECT_EQ(WithToken({{"lstrip", true}}).Encode("a \n<t> x"), (Ids{0, 3, 1, 2}));
  EXPECT_EQ(WithToken({{"rstrip", true}}).Encode("a <t>\t x"), (Ids{0, 1, 3, 2}));
  EXPECT_EQ(WithToken({{"lstrip", true}, {"rstrip", true}}).Encode(" <t> <t> "), (Ids{3, 3}));
}

TEST(AddedTokens, SpacesAreTakenOnce) {
  Json file = SmallTokenizer({"a", " ", "x"});
  file["added_tokens"] = {AddedEntry(3, "<t>"), AddedEntry(4, "\t\t"), AddedEntry(5, "\n\n"), AddedEntry(6, "  a")};
  file["added_tokens"][0]["rstrip"] = true;
  file["added_tokens"][1].update({{"lstrip", true}, {"rstrip", true}});
  file["added_tokens"][3]["lstrip"] = true;
  const Tokenizer tokenizer = LoadSmall(file);
  EXPECT_EQ(tokenizer.Encode("\t\t\t\tx"), (Ids{4, 2})) << "the first one takes the second one's text";
  EXPECT_EQ(tokenizer.Encode("<t> \t\tx"), (Ids{3, 2}));
  EXPECT_EQ(tokenizer.Encode("<t>   ax"), (Ids{3, 6, 2})) << "what is left of a token is that token";
  EXPECT_EQ(tokenizer.Encode("<t>\n\nx"), (Ids{3, 5, 2})) << "one that does not strip stands twice, as in HF";
  EXPECT_EQ(tokenizer.Encode("<t>  x"), (Ids{3, 2}));
}

TEST(AddedTokens, SingleWordsNeedEdges) {
  Json file = SmallTokenizer({"a", " ", "x", "t"});
  file["added_tokens"] = {AddedEntry(4, "tt")};
  file["added_tokens"][0]["single_word"] = true;
  const Tokenizer tokenizer = LoadSmall(file);
  EXPECT_EQ(tokenizer.Encode("tt"), Ids{4});
  EXPECT_EQ(tokenizer.Encode("a tt x"), (Ids{0, 1, 4, 1, 2}));
  EXPECT_EQ(tokenizer.Encode("att"), (Ids{0, 3, 3}));
  EXPECT_EQ(tokenizer.Encode("ttx"), (Ids{3, 3, 2}));
}

TEST(AddedTokens, TheLongestWinsAtTheFirstPlace) {
  Json file = SmallTokenizer({"a", "b", "c"});
  file["added_tokens"] = {AddedEntry(3, "ab"), AddedEntry(4, "abc"), AddedEntry(5, "bcc")};
  const Tokenizer tokenizer = LoadSmall(file);
  EXPECT_EQ(tokenizer.Encode("abcc"), (Ids{4, 2}));
  EXPECT_EQ(tokenizer.Encode("abb"), (Ids{3, 1}));
  EXPECT_EQ(tokenizer.Encode("cbcc"), (Ids{2, 5}));
}

TEST(AddedTokens, NormalizedOnesMatchTheNormalizedText) {
  Json file = SmallTokenizer({"▁", "a", "<", "t", ">"});
  file["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", {{{"type", "Prepend"}, {"prepend", "▁"}}, {{"type", "Lowercase"}}}}};
  file["added_tokens"] = {AddedEntry(5, "<T>")};
  EXPECT_EQ(LoadSmall(file).Encode("a<t>"), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(LoadSmall(file).Encode("a<T>a"), (Ids{0, 1, 5, 0, 1})) << "each section is normalized by itself";
  file["added_tokens"][0]["normalized"] = true;
  EXPECT_EQ(LoadSmall(file).Encode("<t>a"), (Ids{5, 1})) << "the token is \"▁<t>\" now";
  EXPECT_EQ(LoadSmall(file).Encode("a<T>"), (Ids{0, 1, 2, 3, 4}));
}

TEST(AddedTokens, TokensOfTheConfigurationAreAddedBehind) {
  const TemporaryFolder folder;
  Json file = SmallTokenizer({"a", "b"});
  file["added_tokens"] = {AddedEntry(2, "<s>")};
  WriteFile(folder.path() / "tokenizer.json", file.dump());
  const Json config = {{"bos_token", "<s>"},
                       {"eos_token", {{"content", "<end>"}, {"lstrip", true}}},
                       {"added_tokens_decoder", {{"3", {{"content", "<tool>"}, {"special", false}}}}},
                       {"add_bos_token", true}};
  WriteFile(folder.path() / "tokenizer_config.json", config.dump());
  WriteFile(folder.path() / "special_tokens_map.json",
            R"({"additional_special_tokens": ["<x>"], "pad_token": "<s>"})");
  const Tokenizer tokenizer = Tokenizer::Load(folder.path());
  EXPECT_EQ(tokenizer.Encode("a<tool>b <end><x>"), (Ids{0, 3, 1, 4, 5})) << "the file's post-processor counts";
  EXPECT_EQ(tokenizer.bos_id(), 2);
  EXPECT_EQ(tokenizer.eos_id(), 4);
  EXPECT_EQ(tokenizer.Decode(Ids{0, 3, 4}), "a <tool>");
}

TEST(AddedTokens, IdsMustAgreeWithTheVocabulary) {
  for (const Json& id : {Json(7), Json(0), Json(-1), Json(int64_t{1} << 40), Json("3"), Json(nullptr)}) {
    Json file = SmallTokenizer({"a"});
    file["added_tokens"] = {AddedEntry(1, "<t>")};
    file["added_tokens"][0]["id"] = id;
    EXPECT_THROW(LoadSmall(file), ConfigError) << id;
  }
  Json file = SmallTokenizer({"a"});
  file["added_tokens"] = {1};
  EXPECT_THROW(LoadSmall(file), ConfigError);
}

}  // namespace
}  // namespace runahead::tokenizer
