// Pre-tokenizers: how tokenizer.json cuts a normalized text into the pieces that are encoded one by one.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/json.h"
#include "tokenizer/pieces.h"

namespace runahead::tokenizer {

/// Stages that cut pieces further, one after the other. Once the pieces are words, what becomes of a word depends on
/// nothing but the word (and on whether the input starts with it), so the later stages need to see each word only
/// once. Immutable, for many threads.
class PreTokenizer {
 public:
  /// Cuts every piece by itself, and may rewrite its text.
  class Stage {
   public:
    virtual ~Stage() = default;
    virtual void Apply(Pieces& pieces) const = 0;

    /// How many times longer the text may become, at most.
    [[nodiscard]] virtual double Growth() const { return 1; }
  };

  explicit PreTokenizer(std::vector<std::unique_ptr<const Stage>> stages);

  /// The stages that cut a text into words.
  void CutText(Pieces& pieces) const { Run(pieces, 0, word_stage_); }
  /// The stages behind them, on pieces that CutText left.
  void CutWords(Pieces& pieces) const { Run(pieces, word_stage_, stages_.size()); }
  /// Whether CutWords does anything.
  [[nodiscard]] bool HasWordStages() const { return word_stage_ < stages_.size(); }

  /// How many times longer the text may become by all stages, at most.
  [[nodiscard]] double Growth() const;

 private:
  void Run(Pieces& pieces, size_t begin, size_t end) const {
    for (size_t i = begin; i < end; ++i) stages_[i]->Apply(pieces);
  }

  std::vector<std::unique_ptr<const Stage>> stages_;
  size_t word_stage_ = 0;  // the first of CutWords
};

/// Null when the field `key` is absent or null: the text stays one piece. Throws ConfigError.
std::unique_ptr<const PreTokenizer> LoadPreTokenizer(const JsonObject& file, const char* key);

}  // namespace runahead::tokenizer
