// Fuzzes what reads weights: an input that starts with a brace is the index of shards, any other the one file of a
// model.
#include "fuzz_folder.h"
#include "model/safetensors.h"

namespace runahead::fuzz {
namespace {

// One tensor "w" of one byte.
constexpr std::string_view kHeader = R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}  )";

void WriteShard() {
  std::string shard(8, '\0');
  shard[0] = static_cast<char>(kHeader.size());
  WriteFile(Folder() / "shard.safetensors", shard.append(kHeader).append("x"));
}

// Reads each byte of each tensor, so that one outside the file is noticed.
void Touch(const SafetensorsFile& file) {
  unsigned sum = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    for (const std::byte byte : file.Bytes(tensor)) sum += std::to_integer<unsigned>(byte);
  }
  volatile unsigned sink = sum;
  (void)sink;
}

}  // namespace
}  // namespace runahead::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace runahead;
  using namespace runahead::fuzz;
  static const bool written = (WriteShard(), true);
  (void)written;
  const std::string_view input = TextOf(data, size);
  const std::filesystem::path whole = Folder() / "model.safetensors";
  if (input.starts_with('{')) {
    std::filesystem::remove(whole);
    WriteFile(Folder() / "model.safetensors.index.json", input);
    MayRefuse([] { const WeightFiles files(Folder()); });
  } else {
    WriteFile(whole, input);
    MayRefuse([&] { Touch(SafetensorsFile(whole)); });
  }
  return 0;
}
