#include "tokenizer/decode_stages.h"

#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/sentencepiece_file.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

/// What most stages do: keep the next stage, and end when it ends.
class ChainedStage : public DecodeStage {
 public:
  explicit ChainedStage(Stage next) : next_(std::move(next)) {}
  void Finish() override { next_->Finish(); }

 protected:
  void Emit(const Fragment& fragment) { next_->Feed(fragment); }

 private:
  Stage next_;
};

/// A stage that changes each token as a whole: fragments are collected until their token ends.
class WholeTokenStage : public ChainedStage {
 public:
  using ChainedStage::ChainedStage;

  void Feed(const Fragment& fragment) final {
    if (fragment.first && fragment.last) return Token(fragment.text);
    if (fragment.first) token_.clear();
    token_ += fragment.text;
    if (fragment.last) Token(token_);
  }

 protected:
  virtual void Token(std::string_view token) = 0;

 private:
  std::string token_;
};

/// A stage that makes one token of all: it opens with the first text and is ended by Finish.
class OneTokenStage : public ChainedStage {
 public:
  using ChainedStage::ChainedStage;

  void Finish() override {
    Emit({"", std::exchange(first_, true), true});
    ChainedStage::Finish();
  }

 protected:
  void Append(std::string_view text) {
    if (!text.empty()) Emit({text, std::exchange(first_, false), false});
  }

 private:
  bool first_ = true;
};

class CollectStage final : public DecodeStage {
 public:
  explicit CollectStage(std::string& text) : text_(text) {}
  void Feed(const Fragment& fragment) override { text_ += fragment.text; }
  void Finish() override {}

 private:
  std::string& text_;
};

class JoinStage final : public ChainedStage {
 public:
  using ChainedStage::ChainedStage;
  void Feed(const Fragment& fragment) override {
    if (fragment.first && !std::exchange(first_, false)) Emit({" ", true, true});
    Emit(fragment);
  }
  void Finish() override {
    first_ = true;
    ChainedStage::Finish();
  }

 private:
  bool first_ = true;
};

class CharacterBytesStage final : public OneTokenStage {
 public:
  using OneTokenStage::OneTokenStage;

  void Feed(const Fragment& fragment) override {
    // A token with any other character (an added one) is its own text, so fragments must be whole tokens.
    const size_t start = bytes_.size();
    for (size_t at = 0; at < fragment.text.size(); at += Utf8Length(fragment.text[at])) {
      const int byte = ByteOfCharacter(Utf8At(fragment.text.data() + at));
      if (byte < 0) {
        bytes_.resize(start);
        bytes_ += fragment.text;
        break;
      }
      bytes_ += static_cast<char>(byte);
    }
    AppendFinal(false);
  }

  void Finish() override {
    AppendFinal(true);
    OneTokenStage::Finish();
  }

 private:
  void AppendFinal(bool at_end) {
    std::string_view rest = bytes_;
    std::string text;
    while (!rest.empty()) {
      const size_t valid = ValidUtf8Prefix(rest);
      text += rest.substr(0, valid);
      rest.remove_prefix(valid);
      if (rest.empty()) break;
      size_t broken = BrokenUtf8Length(rest);
      if (broken == 0 && !at_end) break;
      if (broken == 0) broken = rest.size();
      AppendUtf8(kReplacementCharacter, text);
      rest.remove_prefix(broken);
    }
    bytes_ = std::string(rest);
    Append(text);
  }

  std::string bytes_;  // the beginning of a character
};

class TokenBytesStage final : public WholeTokenStage {
 public:
  using WholeTokenStage::WholeTokenStage;

  void Finish() override {
    EndRun();
    WholeTokenStage::Finish();
  }

 protected:
  void Token(std::string_view token) override {
    if (const int byte = ByteOfToken(token); byte >= 0) {
      run_ += static_cast<char>(byte);
      return;
    }
    EndRun();
    Emit({token, true, true});
  }

 private:
  static int ByteOfToken(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    int byte = 0;
    for (const char digit : token.substr(3, 2)) {
      int value = -1;
      if (digit >= '0' && digit <= '9') value = digit - '0';
      if (digit >= 'A' && digit <= 'F') value = digit - 'A' + 10;
      if (digit >= 'a' && digit <= 'f') value = digit - 'a' + 10;
      if (value < 0) return -1;
      byte = byte * 16 + value;
    }
    return byte;
  }

  void EndRun() {
    const std::string run = std::exchange(run_, {});
    if (run.empty()) return;
    if (ValidUtf8Prefix(run) == run.size()) return Emit({run, true, true});
    std::string replacement;
    AppendUtf8(kReplacementCharacter, replacement);
    for (size_t i = 0; i < run.size(); ++i) Emit({replacement, true, true});
  }

  std::string run_;
};

class GatherStage final : public WholeTokenStage {
 public:
  using WholeTokenStage::WholeTokenStage;

 protected:
  void Token(std::string_view token) override { Emit({token, true, true}); }
};

class FuseStage final : public OneTokenStage {
 public:
  using OneTokenStage::OneTokenStage;
  void Feed(const Fragment& fragment) override { Append(fragment.text); }
};

/// Strips the start of tokens; fragments pass at once.
class StripStartStage final : public ChainedStage {
 public:
  StripStartStage(char32_t content, size_t count, Stage next)
      : ChainedStage(std::move(next)), content_(content), count_(count) {}

  void Feed(const Fragment& fragment) override {
    if (fragment.first) left_ = count_;
    std::string_view text = fragment.text;
    while (left_ > 0 && !text.empty()) {
      if (Utf8At(text.data()) != content_) {
        left_ = 0;
        break;
      }
      text.remove_prefix(Utf8Length(text[0]));
      --left_;
    }
    Emit({text, fragment.first, fragment.last});
  }

 private:
  char32_t content_;
  size_t count_;
  size_t left_ = 0;  // number of characters that this token may still lose
};

class StripEndStage final : public WholeTokenStage {
 public:
  StripEndStage(char32_t content, size_t count, Stage next)
      : WholeTokenStage(std::move(next)), content_(content), count_(count) {}

 protected:
  void Token(std::string_view token) override {
    for (size_t left = count_; left > 0 && !token.empty(); --left) {
      const size_t last = PreviousCharacter(token, token.size());
      if (Utf8At(token.data() + last) != content_) break;
      token = token.substr(0, last);
    }
    Emit({token, true, true});
  }

 private:
  char32_t content_;
  size_t count_;
};

class ReplaceStage final : public WholeTokenStage {
 public:
  ReplaceStage(const Pattern& pattern, const std::string& content, Stage next)
      : WholeTokenStage(std::move(next)), pattern_(pattern), content_(content) {}

 protected:
  void Token(std::string_view token) override { Emit({pattern_.ReplaceAll(token, content_), true, true}); }

 private:
  const Pattern& pattern_;
  const std::string& content_;
};

class MetaspaceStage final : public ChainedStage {
 public:
  MetaspaceStage(const Metaspace& metaspace, Stage next) : ChainedStage(std::move(next)), metaspace_(metaspace) {}

  void Feed(const Fragment& fragment) override {
    if (fragment.first) ++tokens_;
    const bool drop = tokens_ == 1 && metaspace_.prepend != PrependScheme::kNever;
    const std::string& mark = metaspace_.replacement;
    std::string text;
    size_t done = 0;
    for (size_t at = fragment.text.find(mark); at != std::string_view::npos; at = fragment.text.find(mark, done)) {
      text += fragment.text.substr(done, at - done);
      if (!drop) text += ' ';
      done = at + mark.size();
    }
    text += fragment.text.substr(done);
    Emit({text, fragment.first, fragment.last});
  }

  void Finish() override {
    tokens_ = 0;
    ChainedStage::Finish();
  }

 private:
  const Metaspace& metaspace_;
  size_t tokens_ = 0;
};

class PieceStage final : public WholeTokenStage {
 public:
  PieceStage(const PieceSettings& settings, Stage next) : WholeTokenStage(std::move(next)), settings_(settings) {}

  void Finish() override {
    EmitBytes(true);
    leading_ = true;
    WholeTokenStage::Finish();
  }

 protected:
  void Token(std::string_view piece) override {
    if (const int byte = settings_.byte_fallback ? ByteOfPiece(piece) : -1; byte >= 0) {
      bytes_ += static_cast<char>(byte);
      return EmitBytes(false);
    }
    EmitBytes(true);
    if (leading_ && settings_.drop_dummy_space && piece.starts_with(kSpaceMark)) {
      piece.remove_prefix(kSpaceMark.size());
      leading_ = settings_.drop_leading_spaces;
    }
    std::string text;
    size_t done = 0;
    for (size_t at = piece.find(kSpaceMark); at != std::string_view::npos; at = piece.find(kSpaceMark, done)) {
      text += piece.substr(done, at - done);
      text += ' ';
      done = at + kSpaceMark.size();
    }
    EmitText(text += piece.substr(done));
  }

 private:
  static constexpr std::string_view kSpaceMark = "\u2581";

  void EmitText(std::string_view text) {
    if (!text.empty()) leading_ = false;
    Emit({text, true, true});
  }

  void EmitBytes(bool at_end) {
    std::string_view rest = bytes_;
    while (!rest.empty()) {
      const size_t valid = ValidUtf8Prefix(rest);
      if (valid > 0) {
        EmitText(rest.substr(0, valid));
        rest.remove_prefix(valid);
        continue;
      }
      if (BrokenUtf8Length(rest) == 0 && !at_end) break;
      EmitText("\uFFFD");
      rest.remove_prefix(1);
    }
    bytes_ = std::string(rest);
  }

  PieceSettings settings_;
  std::string bytes_;    // the beginning of a character
  bool leading_ = true;  // no text so far
};

}  // namespace

Stage CollectText(std::string& text) { return std::make_unique<CollectStage>(text); }
Stage JoinWithSpaces(Stage next) { return std::make_unique<JoinStage>(std::move(next)); }
Stage BytesOfCharacters(Stage next) {
  return std::make_unique<GatherStage>(std::make_unique<CharacterBytesStage>(std::move(next)));
}
Stage BytesOfTokens(Stage next) { return std::make_unique<TokenBytesStage>(std::move(next)); }
Stage FuseTokens(Stage next) { return std::make_unique<FuseStage>(std::move(next)); }

Stage StripTokens(const StripSettings& settings, Stage next) {
  if (settings.stop > 0) next = std::make_unique<StripEndStage>(settings.content, settings.stop, std::move(next));
  return std::make_unique<StripStartStage>(settings.content, settings.start, std::move(next));
}

Stage ReplaceInTokens(const Pattern& pattern, const std::string& content, Stage next) {
  return std::make_unique<ReplaceStage>(pattern, content, std::move(next));
}

Stage TextOfPieces(const PieceSettings& settings, Stage next) {
  return std::make_unique<PieceStage>(settings, std::move(next));
}

Stage SpacesOfMarks(const Metaspace& metaspace, Stage next) {
  return std::make_unique<MetaspaceStage>(metaspace, std::move(next));
}

}  // namespace runahead::tokenizer
