// Fuzzes what reads GGUF files: metadata, the configuration and the tensors that they describe, and the tokenizer.
#include "base/gguf_file.h"
#include "fuzz_folder.h"
#include "model/gguf_config.h"
#include "model/weight_list.h"
#include "model/weight_reader.h"
#include "runahead/tokenizer.h"

namespace runahead::fuzz {
namespace {

// Reads all elements that a model would read.
void ReadModel(const std::filesystem::path& path) {
  const GgufFile file(path);
  const Json json = gguf::ConfigJson(file);
  const JsonObject config(json, file.origin());
  ParsedModel model = FindArchitecture(config).parse(config);
  const WeightFiles weights(path);
  gguf::Adapt(file, weights, model);
  NameByFiles(model.spec, weights, model.sources);
  const WeightReader reader(weights, model.sources.scale_block);
  for (const NamedShape& tensor : ListWeights(model.sources)) (void)reader.Read(tensor.name, tensor.shape);
}

void Encode(const std::filesystem::path& path) {
  const Tokenizer tokenizer = Tokenizer::Load(path);
  MayRefuse([&] { (void)tokenizer.Decode(tokenizer.Encode("A text of 3 words, <s> and Gr\u00fc\u00dfe\n\n")); });
}

}  // namespace
}  // namespace runahead::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace runahead;
  using namespace runahead::fuzz;
  const std::filesystem::path path = Folder() / "model.gguf";
  WriteFile(path, TextOf(data, size));
  MayRefuse([&] { ReadModel(path); });
  MayRefuse([&] { Encode(path); });
  return 0;
}
