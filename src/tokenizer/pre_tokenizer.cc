#include "tokenizer/pre_tokenizer.h"

#include <array>
#include <optional>
#include <utility>

#include "tokenizer/ascii_words.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/component.h"
#include "tokenizer/metaspace.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

using SplitStage = PreTokenizer::Stage;
using Stages = std::vector<std::unique_ptr<const SplitStage>>;

SplitBehavior LoadBehavior(const JsonObject& component, const char* otherwise) {
  const std::string name = component.String("behavior", otherwise);
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  component.Refuse("behavior", "this behaviour is not known");
}

class PatternSplit final : public SplitStage {
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
class CharacterSplit final : public SplitStage {
 public:
  CharacterSplit(bool (*is_delimiter)(char32_t), SplitBehavior behavior)
      : is_delimiter_(is_delimiter), behavior_(behavior) {
    for (char32_t character = 0; character < low_.size(); ++character) low_[character] = is_delimiter(character);
  }
  void Apply(Pieces& pieces) const override {
    Splitter(behavior_).Split(pieces, [this](std::string_view text, std::vector<Range>& matches) {
      for (uint32_t at = 0; at < text.size();) {
        const auto byte = static_cast<uint8_t>(text[at]);
        if (byte < 0x80) {
          if (low_[byte]) matches.push_back({at, at + 1});
          ++at;
          continue;
        }
        const uint32_t next = at + Utf8Length(text[at]);
        if (IsDelimiter(Utf8At(text.data() + at))) matches.push_back({at, next});
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
class WordSplit final : public SplitStage {
 public:
  void Apply(Pieces& pieces) const override {
    enum class Kind { kSpace, kWord, kOther };
    const auto kind_of = [](char32_t character) {
      return IsWord(character) ? Kind::kWord : IsSpace(character) ? Kind::kSpace : Kind::kOther;
    };
    std::vector<Range>& words = pieces.scratch.ranges;
    words.clear();
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
    pieces.ranges.swap(words);
  }
};

/// Puts a space before every piece that starts with none.
class PrefixSpaces final : public SplitStage {
 public:
  void Apply(Pieces& pieces) const override {
    std::string& prefixed = pieces.scratch.text;
    prefixed.clear();
    prefixed.reserve(pieces.text.size() + pieces.ranges.size());
    for (Range& piece : pieces.ranges) {
      const std::string_view text = pieces.View(piece);
      const auto begin = static_cast<uint32_t>(prefixed.size());
      if (!text.starts_with(' ')) prefixed += ' ';
      prefixed += text;
      piece = {begin, static_cast<uint32_t>(prefixed.size())};
    }
    pieces.text.swap(prefixed);
  }

  double Growth() const override { return 2; }  // a piece may be a byte
};

class RegexWords final : public SplitStage {
 public:
  RegexWords(std::string_view pattern, const std::string& origin) : words_(pattern, origin) {}
  void Apply(Pieces& pieces) const override {
    Splitter(SplitBehavior::kIsolated).Split(pieces, [this](std::string_view text, std::vector<Range>& matches) {
      words_.FindAll(text, matches);
    });
  }

 private:
  Regex words_;
};

/// Writes pieces in the byte-level alphabet.
class MapBytes final : public SplitStage {
 public:
  void Apply(Pieces& pieces) const override {
    std::string& mapped = pieces.scratch.text;
    mapped.resize(pieces.text.size() * 2);
    char* write = mapped.data();
    for (Range& piece : pieces.ranges) {
      const auto begin = static_cast<uint32_t>(write - mapped.data());
      write = WriteByteLevel(pieces.View(piece), write);
      piece = {begin, static_cast<uint32_t>(write - mapped.data())};
    }
    mapped.resize(static_cast<size_t>(write - mapped.data()));
    pieces.text.swap(mapped);
  }

  double Growth() const override { return 2; }
};

class SplitMetaspace final : public SplitStage {
 public:
  explicit SplitMetaspace(const JsonObject& component)
      : metaspace_(LoadMetaspace(component)), split_(component.Bool("split", true)) {}

  void Apply(Pieces& pieces) const override {
    std::string& spaced = pieces.scratch.text;
    spaced.clear();
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
    pieces.text.swap(spaced);
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

void AppendByteLevel(const JsonObject& component, Stages& stages) {
  if (component.Bool("add_prefix_space", true)) stages.push_back(std::make_unique<PrefixSpaces>());
  if (component.Bool("use_regex", true)) {
    stages.push_back(std::make_unique<RegexWords>(kGpt2Words, component.origin()));
  }
  stages.push_back(std::make_unique<MapBytes>());
}

void AppendStages(const JsonObject& component, Stages& stages) {
  const std::string type = component.String("type");
  if (type == "Sequence") {
    for (const JsonObject& part : ObjectArray(component, "pretokenizers")) AppendStages(part, stages);
  } else if (type == "Split") {
    stages.push_back(std::make_unique<PatternSplit>(component));
  } else if (type == "ByteLevel") {
    AppendByteLevel(component, stages);
  } else if (type == "Metaspace") {
    stages.push_back(std::make_unique<SplitMetaspace>(component));
  } else if (type == "Whitespace") {
    stages.push_back(std::make_unique<WordSplit>());
  } else if (type == "WhitespaceSplit") {
    stages.push_back(std::make_unique<CharacterSplit>(IsSpace, SplitBehavior::kRemoved));
  } else if (type == "Punctuation") {
    stages.push_back(std::make_unique<CharacterSplit>(IsPunctuation, LoadBehavior(component, "Isolated")));
  } else if (type == "Digits") {
    const bool single = component.Bool("individual_digits", false);
    stages.push_back(
        std::make_unique<CharacterSplit>(IsNumeric, single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
  } else {
    RefuseType(component, "pre-tokenizer");
  }
}

/// Bytes of all pieces over those of the text, at most.
double GrowthOf(const Stages& stages) {
  double growth = 1;
  for (const auto& stage : stages) growth *= stage->Growth();
  return growth;
}

}  // namespace

PreTokenizer::PreTokenizer(Stages stages) : stages_(std::move(stages)) {
  constexpr std::string_view kProse = "Every rank computes the keys and values of its own part and hands them on";
  constexpr size_t kWordBytes = 16;  // words are shorter on average
  Pieces pieces;
  pieces.Start(kProse, true);
  while (word_stage_ < stages_.size() && pieces.text.size() > kWordBytes * pieces.ranges.size()) {
    stages_[word_stage_++]->Apply(pieces);
  }
}

double PreTokenizer::Growth() const { return GrowthOf(stages_); }

std::unique_ptr<const PreTokenizer> LoadPreTokenizer(const JsonObject& file, const char* key) {
  if (!file.Has(key)) return nullptr;
  Stages stages;
  AppendStages(file.Object(key), stages);
  if (GrowthOf(stages) > kMaxGrowth) file.Refuse(key, "a text may become too much longer");
  return std::make_unique<PreTokenizer>(std::move(stages));
}

}  // namespace runahead::tokenizer
