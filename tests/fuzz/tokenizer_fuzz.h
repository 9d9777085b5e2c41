// What is done with a tokenizer that a fuzzed file made: short texts there and back.
#pragma once

#include <algorithm>
#include <vector>

#include "fuzz_folder.h"
#include "runahead/tokenizer.h"

namespace runahead::fuzz {

inline void UseTokenizer(const Tokenizer& tokenizer) {
  constexpr std::string_view kTexts[] = {"Hello  world 123\n\tno\xC3\xABl \xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\x99\x82",
                                         "<s> a\xE2\x96\x81"
                                         "b</s><0x41><unk>",
                                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  for (const std::string_view text : kTexts) {
    MayRefuse([&] {
      const std::vector<int32_t> ids = tokenizer.Encode(text);
      const std::string decoded = tokenizer.Decode(ids);
      StreamDecoder stream(tokenizer);
      std::string streamed;
      for (const int32_t id : ids) streamed += stream.Feed(id);
      if (streamed + stream.Flush() != decoded) __builtin_trap();
    });
  }
  StreamDecoder stream(tokenizer, false);
  for (int32_t id = 0; id < std::min(tokenizer.vocab_size(), 300); ++id) {
    MayRefuse([&] { static_cast<void>(stream.Feed(id)); });
  }
  MayRefuse([&] { static_cast<void>(stream.Flush()); });
}

}  // namespace runahead::fuzz
