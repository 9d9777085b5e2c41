// Fuzzes tokenizer.json: the file is loaded, and short texts go through it.
#include "tokenizer_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace runahead;
  WriteFile(fuzz::Folder() / "tokenizer.json", fuzz::TextOf(data, size));
  fuzz::MayRefuse([] { fuzz::UseTokenizer(Tokenizer::Load(fuzz::Folder())); });
  return 0;
}
