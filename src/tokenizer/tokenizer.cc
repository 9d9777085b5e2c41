#include "runahead/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "base/gguf_file.h"
#include "base/model_folder.h"
#include "runahead/error.h"
#include "tokenizer/tokenizer_parts.h"
#include "tokenizer/utf8.h"
#include "tokenizer/word_cache.h"

namespace runahead {

using tokenizer::kNoToken;
using tokenizer::Pieces;
using tokenizer::Section;
using tokenizer::TokenizerParts;
using tokenizer::WordCache;

namespace {

// Far above any context; with it, every offset into a rewritten text fits 32 bits.
constexpr size_t kMaxText = size_t{1} << 29;

/// One call of Tokenizer::Encode.
class Encoding {
 public:
  explicit Encoding(const TokenizerParts& parts) : parts_(parts), run_(parts.model->Start()) {}

  std::vector<int32_t> Run(std::string_view text) {
    ids_.reserve(text.size() / 4 + 8);
    std::vector<Section> sections;
    parts_.added_tokens.SplitRaw(text, sections);
    for (const Section& section : sections) {
      if (section.id != kNoToken) {
        ids_.push_back(section.id);
      } else {
        Normalized(section.text, section.text.data() == text.data());
      }
    }
    return std::move(ids_);
  }

 private:
  void Normalized(std::string_view raw, bool at_start) {
    std::string normalized;
    if (parts_.normalizer != nullptr) {
      normalized = parts_.normalizer->Apply(std::string(raw), at_start);
      raw = normalized;
    }
    if (raw.size() > kMaxText)
      throw ConfigError(fmt::format("the text normalizes to {} bytes: too many", raw.size()));
    std::vector<Section> sections;
    parts_.added_tokens.SplitNormalized(raw, sections);
    for (const Section& section : sections) {
      if (section.id != kNoToken) {
        ids_.push_back(section.id);
      } else {
        Model(section.text, at_start && section.text.data() == raw.data());
      }
    }
  }

  void Model(std::string_view text, bool at_start) {
    if (parts_.pre_tokenizer == nullptr) return run_->Encode(text, ids_);
    if (static_cast<double>(text.size()) * parts_.pre_tokenizer->Growth() > UINT32_MAX) {
      throw ConfigError(fmt::format("the text normalizes to {} bytes: too many", text.size()));
    }
    text_.Start(text, at_start);
    parts_.pre_tokenizer->CutText(text_);
    EncodeWords(at_start);
  }

  // The words of text_. Each is looked up some words after its place in the table was asked for.
  void EncodeWords(bool at_start) {
    constexpr size_t kAhead = 8;
    std::array<WordCache::Key, kAhead> keys{};
    const std::vector<tokenizer::Range>& ranges = text_.ranges;
    for (size_t i = 0; i < ranges.size() + kAhead; ++i) {
      WordCache::Key& key = keys[i % kAhead];
      if (i >= kAhead) {
        const tokenizer::Range range = ranges[i - kAhead];
        EncodeWord(text_.View(range), key, at_start && range.begin == 0);
      }
      if (i < ranges.size()) {
        const std::string_view word = text_.View(ranges[i]);
        key = word.size() <= WordCache::kMaxWord ? words_.Expect(word) : WordCache::Key();
      }
    }
  }

  // The word that the input starts with may be cut in a way of its own.
  void EncodeWord(std::string_view word, const WordCache::Key& key, bool at_start) {
    const bool remembered = !at_start && word.size() <= WordCache::kMaxWord;
    if (remembered && words_.Append(key, word, ids_)) return;
    const size_t begin = ids_.size();
    if (parts_.pre_tokenizer->HasWordStages()) {
      word_.Start(word, at_start);
      parts_.pre_tokenizer->CutWords(word_);
      for (const tokenizer::Range& range : word_.ranges) run_->Encode(word_.View(range), ids_);
    } else {
      run_->Encode(word, ids_);
    }
    if (remembered) words_.Insert(key, word, std::span(ids_).subspan(begin));
  }

  const TokenizerParts& parts_;
  std::unique_ptr<tokenizer::Model::Run> run_;
  std::vector<int32_t> ids_;
  Pieces text_;
  Pieces word_;
  WordCache words_;  // words and their ids after CutText
};

}  // namespace

void TokenizerParts::IndexTokens() {
  tokens.resize(static_cast<size_t>(std::max(model->vocab().end_id(), added_tokens.end_id())));
  for (int32_t id = 0; id < static_cast<int32_t>(tokens.size()); ++id) {
    if (const auto text = model->vocab().TokenOf(id)) tokens[static_cast<size_t>(id)] = {*text, false};
  }
  for (const auto& [id, token] : added_tokens.tokens()) {
    tokens[static_cast<size_t>(id)] = {token.content, added_tokens.IsSpecial(token.content)};
  }
}

void TokenizerParts::CheckSpecial() const {
  for (const int32_t id : special.items()) {
    if (id != Template::kText) static_cast<void>(TokenOf(id));
  }
}

const TokenizerParts::Token& TokenizerParts::TokenOf(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens.size() || tokens[static_cast<size_t>(id)].text.data() == nullptr) {
    throw ConfigError(fmt::format("{}: no token has the id {} (the largest is {})", origin, id,
                                  static_cast<int64_t>(tokens.size()) - 1));
  }
  return tokens[static_cast<size_t>(id)];
}

Tokenizer::Tokenizer(std::shared_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}

const TokenizerParts& Tokenizer::Parts() const {
  if (parts_ == nullptr) throw ConfigError("tokenizer: it was moved from");
  return *parts_;
}

Tokenizer Tokenizer::Load(const std::filesystem::path& model_dir) {
  if (IsGgufPath(model_dir)) return Tokenizer(tokenizer::LoadTokenizerGguf(GgufFile(model_dir)));
  CheckModelFolder(model_dir, "");
  std::error_code ignored;
  const bool model = std::filesystem::exists(model_dir / "tokenizer.model", ignored);
  if (model && !std::filesystem::exists(model_dir / "tokenizer.json", ignored)) {
    return Tokenizer(tokenizer::LoadTokenizerModel(model_dir));
  }
  const Json json = LoadJson(model_dir / "tokenizer.json");
  try {
    return Tokenizer(tokenizer::LoadTokenizerJson(json, model_dir));
  } catch (const ConfigError& refusal) {
    if (!model) throw;
    try {
      return Tokenizer(tokenizer::LoadTokenizerModel(model_dir));
    } catch (const Error&) {  // the first refusal is of the file that counts
    }
    throw;
  }
}

std::vector<int32_t> Tokenizer::Encode(std::string_view utf8_text, bool add_special) const {
  if (utf8_text.size() > kMaxText) {
    throw ConfigError(
        fmt::format("the text has {} bytes, more than the {} that are possible", utf8_text.size(), kMaxText));
  }
  tokenizer::CheckUtf8(utf8_text, "the text is not UTF-8");
  std::vector<int32_t> ids = Encoding(Parts()).Run(utf8_text);
  return add_special ? Parts().special.Fill(std::move(ids)) : ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  StreamDecoder stream(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += stream.Feed(id);
  return text + stream.Flush();
}

std::optional<int32_t> Tokenizer::TokenId(std::string_view token) const {
  int32_t id = Parts().added_tokens.Find(token);
  if (id == kNoToken) id = Parts().model->vocab().Find(token);
  return id == kNoToken ? std::nullopt : std::optional(id);
}

std::string_view Tokenizer::SpecialToken(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  const TokenizerParts::Token& token = Parts().tokens[static_cast<size_t>(id)];
  return token.special ? token.text : std::string_view();
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(Parts().tokens.size()); }
std::optional<int32_t> Tokenizer::bos_id() const { return Parts().bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return Parts().eos_id; }

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : parts_(tokenizer.parts_),
      skip_special_(skip_special),
      stream_(tokenizer::StartDecoding(*tokenizer.Parts().decoder)) {}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

tokenizer::DecodeStream& StreamDecoder::Stream() const {
  if (stream_ == nullptr) throw ConfigError("stream decoder: it was moved from");
  return *stream_;
}

std::string StreamDecoder::Feed(int32_t id) {
  tokenizer::DecodeStream& stream = Stream();
  const TokenizerParts::Token& token = parts_->TokenOf(id);
  const bool skipped = skip_special_ && token.special;
  if (skipped && !parts_->skipped_tokens_divide) return {};
  stream.Feed(skipped ? std::string_view("") : token.text);
  return stream.Take();
}

std::string StreamDecoder::Flush() {
  Stream().Finish();
  return Stream().Take();
}

}  // namespace runahead
