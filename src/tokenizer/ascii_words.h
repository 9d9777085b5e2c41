// Well-known patterns that cut text into words, on ASCII without the regular expression engine.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace runahead::tokenizer {

/// GPT-2's way of cutting text into words, in Oniguruma's syntax.
inline constexpr std::string_view kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Llama 3's way.
inline constexpr std::string_view kLlama3Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
    R"(\s+(?!\S)|\s+)";

/// Qwen 2's way: Llama 3's with single digits.
inline constexpr std::string_view kQwen2Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
    R"(\s+(?!\S)|\s+)";

/// The rules of one of these patterns, whose matches leave no gaps. A value.
class AsciiWords {
 public:
  /// Nothing for any other pattern.
  static std::optional<AsciiWords> Of(std::string_view pattern);

  /// The end of the match that begins at `begin` (before the end of `text`, where the match before it ended); `begin`
  /// itself where characters beyond ASCII have a say in it.
  [[nodiscard]] uint32_t End(std::string_view text, uint32_t begin) const;

 private:
  enum class Style : uint8_t { kGpt2, kLlama3 };

  AsciiWords(Style style, uint32_t most_digits) : style_(style), most_digits_(most_digits) {}

  [[nodiscard]] uint32_t ContractionLength(std::string_view text, uint32_t begin) const;
  [[nodiscard]] uint32_t SpacesEnd(std::string_view text, uint32_t begin) const;

  Style style_;
  uint32_t most_digits_;  // most digits in one word
};

}  // namespace runahead::tokenizer
