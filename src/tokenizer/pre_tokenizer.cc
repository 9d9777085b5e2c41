#include "tokenizer/pre_tokenizer.h"

#include <array>
#include <optional>
#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/component.h"
#include "tokenizer/metaspace.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

std::unique_ptr<const PreTokenizer> Make(const JsonObject& component);

class SequencePreTokenizer final : public PreTokenizer {
 public:
  explicit SequencePreTokenizer(const JsonObject& component) {
    for (const JsonObject& part : ObjectArray(component, "pretokenizers")) parts_.push_back(Make(part));
  }
  void Apply(Pieces& pieces) const override {
    for (const auto& part : parts_) part->Apply(pieces);
  }
  double Growth() const override {
    double growth = 1;
    for (const auto& part : parts_) growth *= part->Growth();
    return growth;
  }

 private:
  std::vector<std::unique_ptr<const PreTokenizer>> parts_;
};

SplitBehavior LoadBehavior(const JsonObject& component, const char* otherwise) {
  const std::string name = component.String("behavior", otherwise);
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  component.Refuse("behavior", "this behaviour is not known");
}

class PatternSplit final : public PreTokenizer {
 public:
  explicit PatternSplit(const JsonObject& component)
      : pattern_(component, "pattern"),
        behavior_(LoadBehavior(component, "Isolated")),
        invert_(component.Bool("invert", false)) {}
  void Apply(Pieces& pieces) const override {
    Splitter(behavior_, invert_).Split(pieces, [this](std::string_view text, std::vector<Range>& matches) {
      pattern_.FindAll(text, matches);
    });
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

/// Cuts at every character of a class.
class CharacterSplit final : public PreTokenizer {
 public:
  CharacterSplit(bool (*is_delimiter)(char32_t), SplitBehavior behavior)
      : is_delimiter_(is_delimiter), behavior_(behavior) {
    for (char32_t character = 0; character < low_.size(); ++character) low_[character] = is_delimiter(character);
  }
  void Apply(Pieces& pieces) const override {
    Splitter(behavior_).Split(pieces, [this](std::string_view text, std::vector<Range>& matches) {
      for (uint32_t at = 0; at < text.size();) {
        const auto byte = static_cast<uint8_t>(text[at]);
        const uint32_t next = at + Utf8Length(text[at]);
        if (byte < 0x80 ? low_[byte] : IsDelimiter(Utf8At(text.data() + at))) matches.push_back({at, next});
        at = next;
      }
    });
  }

 private:
  [[nodiscard]] bool IsDelimiter(char32_t character) const {
    return character < low_.size() ? low_[character] : is_delimiter_(character);
  }

  bool (*is_delimiter_)(char32_t);
  std::array<bool, 0x180> low_{};  // is_delimiter_ of ASCII and of the byte-level alphabet
  SplitBehavior behavior_;
};

/// Runs of word characters and runs of other characters that are not spaces; the spaces are dropped.
class WordSplit final : public PreTokenizer {
 public:
  void Apply(Pieces& pieces) const override {
    enum class Kind { kSpace, kWord, kOther };
    const auto kind_of = [](char32_t character) {
      return IsWord(character) ? Kind::kWord : IsSpace(character) ? Kind::kSpace : Kind::kOther;
    };
    std::vector<Range> words;
    for (const Range& piece : pieces.ranges) {
      Kind previous = Kind::kSpace;
      for (uint32_t at = piece.begin; at < piece.end;) {
        const Kind kind = kind_of(Utf8At(pieces.text.data() + at));
        const uint32_t next = at + Utf8Length(pieces.text[at]);
        if (kind != Kind::kSpace && kind == previous) {
          words.back().end = next;
        } else if (kind != Kind::kSpace) {
          words.push_back({at, next});
        }
        previous = kind;
        at = next;
      }
    }
    pieces.ranges = std::move(words);
  }
};

class ByteLevelPreTokenizer final : public PreTokenizer {
 public:
  explicit ByteLevelPreTokenizer(const JsonObject& component)
      : add_prefix_space_(component.Bool("add_prefix_space", true)) {
    if (component.Bool("use_regex", true)) words_.emplace(kGpt2Words, component.origin());
  }

  void Apply(Pieces& pieces) const override {
    if (add_prefix_space_) PrefixSpaces(pieces);
    if (words_.has_value()) {
      Splitter(SplitBehavior::kIsolated).Split(pieces, [this](std::string_view text, std::vector<Range>& matches) {
        words_->FindAll(text, matches);
      });
    }
    std::string mapped(pieces.text.size() * 2, '\0');
    char* write = mapped.data();
    for (Range& piece : pieces.ranges) {
      const auto begin = static_cast<uint32_t>(write - mapped.data());
      write = WriteByteLevel(pieces.View(piece), write);
      piece = {begin, static_cast<uint32_t>(write - mapped.data())};
    }
    mapped.resize(static_cast<size_t>(write - mapped.data()));
    pieces.text = std::move(mapped);
  }

  double Growth() const override { return add_prefix_space_ ? 4 : 2; }  // a space for each piece, which may be a byte

 private:
  static void PrefixSpaces(Pieces& pieces) {
    std::string prefixed;
    prefixed.reserve(pieces.text.size() + pieces.ranges.size());
    for (Range& piece : pieces.ranges) {
      const std::string_view text = pieces.View(piece);
      const auto begin = static_cast<uint32_t>(prefixed.size());
      if (!text.starts_with(' ')) prefixed += ' ';
      prefixed += text;
      piece = {begin, static_cast<uint32_t>(prefixed.size())};
    }
    pieces.text = std::move(prefixed);
  }

  bool add_prefix_space_;
  std::optional<Regex> words_;
};

class MetaspacePreTokenizer final : public PreTokenizer {
 public:
  explicit MetaspacePreTokenizer(const JsonObject& component)
      : metaspace_(LoadMetaspace(component)), split_(component.Bool("split", true)) {}

  void Apply(Pieces& pieces) const override {
    std::string spaced;
    spaced.reserve(pieces.text.size() * 2);
    for (Range& piece : pieces.ranges) {
      const std::string_view text = pieces.View(piece);
      const bool first = pieces.at_start && piece.begin == 0;
      const auto begin = static_cast<uint32_t>(spaced.size());
      const bool wanted =
          metaspace_.prepend == PrependScheme::kAlways || (metaspace_.prepend == PrependScheme::kFirst && first);
      if (wanted && !text.starts_with(metaspace_.replacement) && !text.starts_with(' ')) {
        spaced += metaspace_.replacement;
      }
      for (const char byte : text) {
        if (byte == ' ') {
          spaced += metaspace_.replacement;
        } else {
          spaced += byte;
        }
      }
      piece = {begin, static_cast<uint32_t>(spaced.size())};
    }
    pieces.text = std::move(spaced);
    if (!split_) return;
    Splitter(SplitBehavior::kMergedWithNext)
        .Split(pieces, [this](std::string_view text, std::vector<Range>& matches) {
          const std::string& mark = metaspace_.replacement;
          for (size_t at = text.find(mark); at != std::string_view::npos; at = text.find(mark, at + mark.size())) {
            matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + mark.size())});
          }
        });
  }

  double Growth() const override { return 2 * static_cast<double>(metaspace_.replacement.size()); }

 private:
  Metaspace metaspace_;
  bool split_;
};

std::unique_ptr<const PreTokenizer> Make(const JsonObject& component) {
  const std::string type = component.String("type");
  if (type == "Sequence") return std::make_unique<SequencePreTokenizer>(component);
  if (type == "Split") return std::make_unique<PatternSplit>(component);
  if (type == "ByteLevel") return std::make_unique<ByteLevelPreTokenizer>(component);
  if (type == "Metaspace") return std::make_unique<MetaspacePreTokenizer>(component);
  if (type == "Whitespace") return std::make_unique<WordSplit>();
  if (type == "WhitespaceSplit") return std::make_unique<CharacterSplit>(IsSpace, SplitBehavior::kRemoved);
  if (type == "Punctuation") {
    return std::make_unique<CharacterSplit>(IsPunctuation, LoadBehavior(component, "Isolated"));
  }
  if (type == "Digits") {
    const bool single = component.Bool("individual_digits", false);
    return std::make_unique<CharacterSplit>(IsNumeric,
                                            single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  RefuseType(component, "pre-tokenizer");
}

}  // namespace

std::unique_ptr<const PreTokenizer> LoadPreTokenizer(const JsonObject& file, const char* key) {
  if (!file.Has(key)) return nullptr;
  auto pre_tokenizer = Make(file.Object(key));
  if (pre_tokenizer->Growth() > kMaxGrowth) file.Refuse(key, "a text may become too much longer");
  return pre_tokenizer;
}

}  // namespace runahead::tokenizer
