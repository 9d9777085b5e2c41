#include "tokenizer/regex.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "runahead/error.h"
#include "tokenizer/regex_syntax.h"

namespace runahead::tokenizer {
namespace {

std::vector<std::string> Matches(const std::string& pattern, const std::string& text) {
  std::vector<Range> ranges;
  Regex(pattern, "test").FindAll(text, ranges);
  std::vector<std::string> matches;
  for (const Range& range : ranges) matches.push_back(text.substr(range.begin, range.end - range.begin));
  return matches;
}

using Words = std::vector<std::string>;

TEST(Regex, MeansWhatOnigurumaMeans) {
  EXPECT_EQ(Matches(R"(\s)", "a\u180eb\u0085c\u3000d"), (Words{"\u0085", "\u3000"})) << "U+180E is no space";
  EXPECT_EQ(Matches(R"(\w+)", "ne\u0301e _1\u0967-x"), (Words{"ne\u0301e", "_1\u0967", "x"})) << "marks are in words";
  EXPECT_EQ(Matches(R"([^\S\n]+)", "a \t\n b"), (Words{" \t", " "}));
  EXPECT_EQ(Matches(R"(a{,2}b)", "b ab aab aaab"), (Words{"b", "ab", "aab", "aab"}));
  EXPECT_EQ(Matches(R"(^.|.$)", "ab\ncd"), (Words{"a", "b", "c", "d"})) << "lines, not the whole text";
  EXPECT_EQ(Matches(R"(\u00e9|\x41|\v)", "\u00e9A\x0b\x0c"), (Words{"\u00e9", "A", "\x0b"}));
  EXPECT_EQ(Matches(R"((?i:'s|k))", "'S 's '\u017f K \u212a"), (Words{"'S", "'s", "'\u017f", "K", "\u212a"}));
  EXPECT_EQ(Matches(R"(\p{Han}+)", "a漢字\u3001b"), (Words{"漢字"})) << "a script without its extensions";
  EXPECT_EQ(Matches(R"(\b\w)", "ab-c"), (Words{"a", "c"}));
}

TEST(Regex, EmptyMatchesCountUnlessTheyTouchAMatch) {
  std::vector<Range> ranges;
  Regex("x*", "test").FindAll("axb", ranges);
  ASSERT_EQ(ranges.size(), 3U);
  EXPECT_EQ(ranges[0].end, 0U);
  EXPECT_EQ(ranges[1].begin, 1U);
  EXPECT_EQ(ranges[1].end, 2U);
  EXPECT_EQ(ranges[2].begin, 3U);
}

TEST(Regex, ShortCutsOfKnownPatternsChangeNothing) {
  const std::vector<std::string> characters = {
      "a",    "b",    "S",    "s",      "T",      "re",     "VE",     "ll",     "'",      "'s",     "'LL",
      "0",    "12",   " ",    "  ",     "\t",     "\n",     "\r",     "\r\n",   ".",      "-",      "$",
      "\x01", "\x1c", "\x7f", "\u00e9", "\u0301", "\u00a0", "\u2028", "\u3000", "\u017f", "\u00bd", "\u6f22"};
  std::mt19937 random(7);
  for (const std::string_view pattern : {kGpt2Words, kLlama3Words, kQwen2Words}) {
    const Regex shortened(pattern, "test");
    const Regex plain("(?:" + std::string(pattern) + ")", "test");
    for (int i = 0; i < 20000; ++i) {
      const size_t kinds = i % 2 == 0 ? 25 : characters.size();  // ASCII alone, or all
      std::string text;
      for (size_t length = random() % 12; length > 0; --length) text += characters[random() % kinds];
      std::vector<Range> actual;
      std::vector<Range> expected;
      shortened.FindAll(text, actual);
      plain.FindAll(text, expected);
      ASSERT_TRUE(
          std::ranges::equal(actual, expected, [](Range a, Range b) { return a.begin == b.begin && a.end == b.end; }))
          << pattern << " on " << ::testing::PrintToString(text);
    }
  }
}

TEST(Regex, ShortCutsAreLinear) {
  const std::string text(2000000, '7');
  std::vector<Range> matches;
  Regex(kLlama3Words, "test").FindAll(text, matches);
  EXPECT_EQ(matches.size(), 666667U);
}

TEST(Regex, RefusesWhatItWouldReadDifferently) {
  for (const char* pattern : {"(?m:a)",
                              "(?<name>a)",
                              "(?x)a",
                              "a(?i)b",
                              "[a[bc]]",
                              "[a&&b]",
                              "[[:alpha:]]",
                              R"(\h)",
                              R"(\X)",
                              R"(\K)",
                              R"(\xe9)",
                              R"([\W])",
                              "a{2}+",
                              "a{2}?",
                              "(*UTF)a",
                              "(a",
                              "[a",
                              "a)",
                              R"(\p{NoSuchScript})",
                              R"(\pL)",
                              "\\"}) {
    EXPECT_THROW(Regex(pattern, "test"), ConfigError) << pattern;
  }
}

TEST(Regex, GivesUpWithAnErrorInsteadOfHanging) {
  const Regex regex("(a+)+[bc]", "file: pattern");
  std::vector<Range> ranges;
  EXPECT_THROW(regex.FindAll(std::string(60, 'a'), ranges), ConfigError);
}

TEST(Regex, LongRunsAreLinear) {
  std::vector<Range> ranges;
  Regex(R"(\s+(?!\S)|\s+|(?:[a-z]-?)+)", "test").FindAll(std::string(1 << 20, ' ') + "x", ranges);
  EXPECT_EQ(ranges.size(), 3U);
}

}  // namespace
}  // namespace runahead::tokenizer
