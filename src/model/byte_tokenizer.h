// The tokenizer of made models: every byte is a token.
#pragma once

#include <cstdint>

#include "base/json.h"

namespace runahead {

/// A tokenizer.json (Hugging Face tokenizers, byte-level BPE without merges): ids 0 to 255 are the bytes, then the
/// begin and the end of a text, then words nobody writes, so that each of `vocab` ids has a text. vocab is at least
/// 258.
Json ByteTokenizer(int64_t vocab);

}  // namespace runahead
