#include "tokenizer/utf8.h"

#include <gtest/gtest.h>

#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

TEST(Utf8, EveryCharacterSurvivesWritingAndReading) {
  for (char32_t character = 0; character < 0x110000; ++character) {
    if (character >= 0xD800 && character < 0xE000) continue;
    std::string text;
    AppendUtf8(character, text);
    ASSERT_EQ(Utf8Length(text[0]), text.size());
    ASSERT_EQ(Utf8At(text.data()), character);
    ASSERT_EQ(ValidUtf8Prefix(text), text.size());
    ASSERT_EQ(PreviousCharacter("ab" + text, 2 + text.size()), 2U);
  }
}

TEST(Utf8, BrokenBytesAreNamedWithTheirPlace) {
  const auto message = [](std::string_view text) -> std::string {
    try {
      CheckUtf8(text, "prompt");
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message("all fine: \xC3\xA9 \xF0\x9F\x99\x82"), "");
  EXPECT_EQ(message("ab\xFF"), "prompt: byte 2 (0xFF) does not start a UTF-8 character");
  EXPECT_EQ(message("\x80"), "prompt: byte 0 (0x80) does not start a UTF-8 character");
  EXPECT_EQ(message("0123456789\xC3"), "prompt: byte 10 (0xC3) does not start a UTF-8 character");
  EXPECT_NE(message("\xC0\x80"), "") << "overlong";
  EXPECT_NE(message("\xE0\x80\x80"), "") << "overlong";
  EXPECT_NE(message("\xED\xA0\x80"), "") << "surrogate";
  EXPECT_NE(message("\xF4\x90\x80\x80"), "") << "above U+10FFFF";
  EXPECT_NE(message("\xF5\x80\x80\x80"), "");
}

TEST(Utf8, BrokenSequencesCountAsTheirLongestSensiblePart) {
  EXPECT_EQ(BrokenUtf8Length("\xFF"), 1U);
  EXPECT_EQ(BrokenUtf8Length("\xF0\x9F\x99z"), 3U);
  EXPECT_EQ(BrokenUtf8Length("\xF0\x80"), 1U);
  EXPECT_EQ(BrokenUtf8Length("\xE2\x82"), 0U) << "the rest may come";
  EXPECT_EQ(BrokenUtf8Length("\xE2"), 0U);
}

}  // namespace
}  // namespace runahead::tokenizer
