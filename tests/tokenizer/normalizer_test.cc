#include "tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

std::string Normalized(const Json& component, const std::string& text) {
  const Json file = {{"normalizer", component}};
  return LoadNormalizer(JsonObject(file, "test"), "normalizer")->Apply(text);
}

TEST(Normalizer, NullAndAbsentMeanNone) {
  const Json null = {{"normalizer", nullptr}};
  EXPECT_EQ(LoadNormalizer(JsonObject(null, "test"), "normalizer"), nullptr);
  EXPECT_EQ(LoadNormalizer(JsonObject(null, "test"), "other"), nullptr);
}

TEST(Normalizer, UnicodeForms) {
  EXPECT_EQ(Normalized({{"type", "NFC"}}, "e\u0301 ﬁ"), "\u00e9 ﬁ");
  EXPECT_EQ(Normalized({{"type", "NFD"}}, "\u00e9"), "e\u0301");
  EXPECT_EQ(Normalized({{"type", "NFKC"}}, "ﬁ Ⅷ"), "fi VIII");
  EXPECT_EQ(Normalized({{"type", "NFKD"}}, "\u00e9 ﬁ"), "e\u0301 fi");
  EXPECT_EQ(Normalized({{"type", "NFC"}}, "plain"), "plain");
}

TEST(Normalizer, NewerCombiningMarksStayInPlace) {
  // U+1DF9 came with Unicode 10: the tables that vocabularies were made with do not know its class.
  EXPECT_EQ(Normalized({{"type", "NFC"}}, "a\u0301\u1DF9\u0327"), "\u00e1\u1DF9\u0327");
}

TEST(Normalizer, Lowercase) { EXPECT_EQ(Normalized({{"type", "Lowercase"}}, "ÀB\u0130ẞ"), "àbi\u0307ß"); }

TEST(Normalizer, PrependLeavesAnEmptyTextEmpty) {
  const Json prepend = {{"type", "Prepend"}, {"prepend", "▁"}};
  EXPECT_EQ(Normalized(prepend, "a"), "▁a");
  EXPECT_EQ(Normalized(prepend, ""), "");
}

TEST(Normalizer, ReplaceByStringAndByRegex) {
  EXPECT_EQ(Normalized({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}, " a  b"), "▁a▁▁b");
  EXPECT_EQ(Normalized({{"type", "Replace"}, {"pattern", {{"Regex", "\\s{2,}"}}}, {"content", "-"}}, " a  b"),
            " a-b");
  EXPECT_EQ(Normalized({{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}}, "ab"), "ab");
}

TEST(Normalizer, StripSides) {
  EXPECT_EQ(Normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \u3000a b\n"), "a b");
  EXPECT_EQ(Normalized({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}, " a "), " a");
  EXPECT_EQ(Normalized({{"type", "Strip"}}, " \t "), "");
}

TEST(Normalizer, SequencesRunInOrder) {
  const Json sequence = {{"type", "Sequence"},
                         {"normalizers",
                          {{{"type", "Prepend"}, {"prepend", " "}},
                           {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
  EXPECT_EQ(Normalized(sequence, "a b"), "▁a▁b");
}

TEST(Normalizer, RefusesOtherTypesByName) {
  try {
    Normalized({{"type", "Precompiled"}}, "");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "test: normalizer: type: this kind of normalizer is not implemented, got \"Precompiled\"");
  }
  EXPECT_THROW(Normalized({{"type", "Sequence"}, {"normalizers", {1}}}, ""), ConfigError);
  EXPECT_THROW(Normalized({{"type", "Sequence"}, {"normalizers", "x"}}, ""), ConfigError);
  EXPECT_THROW(Normalized({{"type", "Prepend"}}, ""), ConfigError);
  EXPECT_THROW(Normalized("NFC", ""), ConfigError);
}

}  // namespace
}  // namespace runahead::tokenizer
