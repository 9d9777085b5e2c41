#include "tokenizer/sentencepiece_normalizer.h"

#include <fmt/format.h>

#include "runahead/error.h"
#include "tokenizer/byte_trie.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";

class SentencePieceNormalizer final : public Normalizer {
 public:
  SentencePieceNormalizer(const SentencePieceFile& file, DummySpaces dummy_spaces, const std::string& origin)
      : charsmap_(file.charsmap, origin),
        dummy_spaces_(dummy_spaces),
        space_as_suffix_(file.space_as_suffix),
        remove_extra_spaces_(file.remove_extra_spaces),
        space_(file.escape_spaces ? kSpaceMark : " ") {
    for (const Piece& piece : file.pieces) {
      if (piece.kind == PieceKind::kUserDefined) user_defined_.Add(piece.text, 0);
    }
    plain_ = user_defined_.empty() && charsmap_.longest() == 0;
  }

  double Growth() const override {
    return static_cast<double>(std::max<size_t>(charsmap_.longest(), 1) * space_.size() + space_.size());
  }

 private:
  /// What the beginning of a text becomes, and how long that beginning is.
  struct Part {
    std::string_view text;
    size_t length;
  };

  std::string Rewrite(std::string text, bool at_start) const override {
    std::string_view rest = text;
    while (remove_extra_spaces_ && !rest.empty()) {
      const Part part = NextPart(rest);
      if (part.text != " ") break;
      rest.remove_prefix(part.length);
    }
    if (rest.empty()) return {};
    const bool dummy =
        dummy_spaces_ == DummySpaces::kEverywhere || (dummy_spaces_ == DummySpaces::kFirst && at_start);
    std::string normal;
    normal.reserve(rest.size() + rest.size() / 2 + space_.size());
    if (dummy && !space_as_suffix_) normal += space_;
    if (plain_ && !remove_extra_spaces_) {
      AppendEscaped(rest, normal);
    } else {
      AppendParts(rest, normal);
    }
    while (remove_extra_spaces_ && normal.ends_with(space_)) normal.resize(normal.size() - space_.size());
    if (dummy && space_as_suffix_) normal += space_;
    return normal;
  }

  void AppendParts(std::string_view rest, std::string& normal) const {
    bool after_space = remove_extra_spaces_;
    while (!rest.empty()) {
      Part part = NextPart(rest);
      rest.remove_prefix(part.length);
      while (after_space && part.text.starts_with(' ')) part.text.remove_prefix(1);
      if (part.text.empty()) continue;
      AppendEscaped(part.text, normal);
      after_space = remove_extra_spaces_ && part.text.ends_with(' ');
    }
  }

  [[nodiscard]] Part NextPart(std::string_view text) const {
    if (!user_defined_.empty()) {
      const ByteTrie::Match match = user_defined_.LongestPrefix(text);
      if (match.length > 0) return {text.substr(0, match.length), match.length};
    }
    const Charsmap::Match match = charsmap_.LongestPrefix(text);
    if (match.length > 0) return {match.replacement, match.length};
    const size_t length = Utf8Length(text[0]);
    return {text.substr(0, length), length};
  }

  void AppendEscaped(std::string_view text, std::string& normal) const {
    for (const char byte : text) {
      if (byte == ' ') {
        normal += space_;
      } else {
        normal += byte;
      }
    }
  }

  Charsmap charsmap_;
  DummySpaces dummy_spaces_;
  bool space_as_suffix_;
  bool remove_extra_spaces_;
  std::string_view space_;
  ByteTrie user_defined_;
  bool plain_;  // every character stays
};

}  // namespace

std::unique_ptr<const Normalizer> MakeSentencePieceNormalizer(const SentencePieceFile& file, DummySpaces dummy_spaces,
                                                              const std::string& origin) {
  return std::make_unique<SentencePieceNormalizer>(file, dummy_spaces, origin);
}

}  // namespace runahead::tokenizer
