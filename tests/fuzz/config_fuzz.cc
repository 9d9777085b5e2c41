// Fuzzes what reads config.json: the architecture, its spec, and the list of its weights.
#include "fuzz_folder.h"
#include "model/architectures.h"
#include "model/weight_list.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace runahead;
  fuzz::MayRefuse([&] {
    const Json json = ParseJson(fuzz::TextOf(data, size), "config.json");
    const JsonObject config(json, "config.json");
    const auto [spec, sources] = FindArchitecture(config).parse(config);
    int64_t elements = 0;
    for (const NamedShape& tensor : ListWeights(sources)) elements += tensor.shape.elements();
    if (elements <= 0) __builtin_trap();
  });
  return 0;
}
