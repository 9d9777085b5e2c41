// What SentencePiece does to a text before it is cut.
#pragma once

#include <memory>

#include "tokenizer/normalizer.h"
#include "tokenizer/sentencepiece_file.h"

namespace runahead::tokenizer {

/// Where a text gets the dummy space that a model asks for: at its beginning only, or also behind each special token.
enum class DummySpaces { kNone, kFirst, kEverywhere };

/// Replaces by the charsmap's rules, trims and joins spaces, adds the dummy space and writes spaces as U+2581, as the
/// file says; user-defined pieces stay as they are. Throws ConfigError, opening with `origin`, for a charsmap that is
/// broken.
std::unique_ptr<const Normalizer> MakeSentencePieceNormalizer(const SentencePieceFile& file, DummySpaces dummy_spaces,
                                                              const std::string& origin);

}  // namespace runahead::tokenizer
