#include "tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

using Words = std::vector<std::string>;

Words Cut(const Json& component, const std::string& text, bool at_start = true) {
  const Json file = {{"pre_tokenizer", component}};
  const auto pre_tokenizer = LoadPreTokenizer(JsonObject(file, "test"), "pre_tokenizer");
  Pieces pieces;
  pieces.Start(text, at_start);
  pre_tokenizer->CutText(pieces);
  pre_tokenizer->CutWords(pieces);
  Words words;
  for (const Range& range : pieces.ranges) words.emplace_back(pieces.View(range));
  return words;
}

Json Split(const std::string& behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", invert}};
}

TEST(PreTokenizer, SplitBehaviours) {
  const std::string text = "the-final--countdown";
  EXPECT_EQ(Cut(Split("Removed"), text), (Words{"the", "final", "countdown"}));
  EXPECT_EQ(Cut(Split("Isolated"), text), (Words{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(Cut(Split("MergedWithPrevious"), text), (Words{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(Cut(Split("MergedWithNext"), text), (Words{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(Cut(Split("Contiguous"), text), (Words{"the", "-", "final", "--", "countdown"}));
}

TEST(PreTokenizer, SplitInverted) {
  EXPECT_EQ(Cut(Split("Removed", true), "a-b--"), (Words{"-", "-", "-"}));
  EXPECT_EQ(Cut(Split("Removed", true), "ab"), Words{});
  EXPECT_EQ(Cut(Split("MergedWithPrevious", true), "-a-b"), (Words{"-a", "-b"}));
}

TEST(PreTokenizer, SplitByRegex) {
  const Json split = {{"type", "Split"}, {"pattern", {{"Regex", "\\d{1,3}"}}}, {"behavior", "Isolated"}};
  EXPECT_EQ(Cut(split, "a12345b"), (Words{"a", "123", "45", "b"}));
}

TEST(PreTokenizer, ByteLevel) {
  const Json plain = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  EXPECT_EQ(Cut(plain, "I'll go\n 12é"), (Words{"I", "'ll", "Ġgo", "Ċ", "Ġ12", "Ã©"}));
  const Json prefixed = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  EXPECT_EQ(Cut(prefixed, "go"), Words{"Ġgo"});
  EXPECT_EQ(Cut(prefixed, " go"), Words{"Ġgo"});
  const Json whole = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  EXPECT_EQ(Cut(whole, "a b\x7f"), Words{"aĠbġ"});
}

TEST(PreTokenizer, ByteLevelAlphabetIsInvertible) {
  std::string all;
  for (int byte = 1; byte < 128; ++byte) all += static_cast<char>(byte);
  const Words mapped = Cut({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}, all);
  ASSERT_EQ(mapped.size(), 1U);
  EXPECT_EQ(mapped[0].substr(0, 4), "āĂ");
}

TEST(PreTokenizer, DigitsSingleAndTogether) {
  EXPECT_EQ(Cut({{"type", "Digits"}, {"individual_digits", true}}, "a12½"), (Words{"a", "1", "2", "½"}));
  EXPECT_EQ(Cut({{"type", "Digits"}, {"individual_digits", false}}, "a12½b"), (Words{"a", "12½", "b"}));
}

TEST(PreTokenizer, PunctuationAndSpaces) {
  EXPECT_EQ(Cut({{"type", "Punctuation"}}, "a, b!?"), (Words{"a", ",", " b", "!", "?"}));
  EXPECT_EQ(Cut({{"type", "Punctuation"}, {"behavior", "Contiguous"}}, "a,。$b"), (Words{"a", ",。$", "b"}));
  EXPECT_EQ(Cut({{"type", "Whitespace"}}, " Hey, you_2 ++ "), (Words{"Hey", ",", "you_2", "++"}));
  EXPECT_EQ(Cut({{"type", "WhitespaceSplit"}}, " a,\u3000b "), (Words{"a,", "b"}));
}

TEST(PreTokenizer, MetaspacePrefixes) {
  const auto metaspace = [](const std::string& scheme, bool split) {
    return Json{{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
  };
  EXPECT_EQ(Cut(metaspace("always", true), "Hey  you"), (Words{"▁Hey", "▁", "▁you"}));
  EXPECT_EQ(Cut(metaspace("always", false), " a b"), Words{"▁a▁b"});
  EXPECT_EQ(Cut(metaspace("first", true), "a b", true), (Words{"▁a", "▁b"}));
  EXPECT_EQ(Cut(metaspace("first", true), "a b", false), (Words{"a", "▁b"}));
  EXPECT_EQ(Cut(metaspace("never", true), "a b"), (Words{"a", "▁b"}));
  const Json old = {{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}};
  EXPECT_EQ(Cut(old, "a b"), (Words{"a", "_b"}));
}

TEST(PreTokenizer, FalconCutsMappedDigits) {
  const Json falcon = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Punctuation"}, {"behavior", "Contiguous"}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}},
        {{"type", "Digits"}, {"individual_digits", false}},
        {{"type", "Split"}, {"pattern", {{"Regex", "[0-9][0-9][0-9]"}}}, {"behavior", "Isolated"}}}}};
  const Json file = {{"pre_tokenizer", falcon}};
  EXPECT_TRUE(LoadPreTokenizer(JsonObject(file, "test"), "pre_tokenizer")->HasWordStages());
  EXPECT_EQ(Cut(falcon, "in 12345."), (Words{"in", "Ġ", "123", "45", "."}));
  EXPECT_EQ(Cut(falcon, "²"), (Words{"Â", "²"})) << "the second byte's character is a digit";
}

TEST(PreTokenizer, RefusesOtherTypesAndBehaviours) {
  EXPECT_THROW(Cut({{"type", "UnicodeScripts"}}, ""), ConfigError);
  EXPECT_THROW(Cut(Split("Doubled"), ""), ConfigError);
  EXPECT_THROW(Cut({{"type", "Metaspace"}, {"replacement", "ab"}}, ""), ConfigError);
  EXPECT_THROW(Cut({{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}}, ""), ConfigError);
  EXPECT_THROW(
      Cut({{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}, {"prepend_scheme", "first"}},
          ""),
      ConfigError);
}

}  // namespace
}  // namespace runahead::tokenizer
