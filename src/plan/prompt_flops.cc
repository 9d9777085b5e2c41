#include "plan/prompt_flops.h"

namespace runahead {

double PromptFlops(const WorkShape& shape, int64_t begin, int64_t end) {
  double flops = static_cast<double>(end - begin) * shape.MeanLinearFlops() * shape.layers;
  for (const LayersOfWindow& alike : shape.FirstLayers(shape.layers)) {
    flops += alike.layers * shape.PairFlops() * static_cast<double>(CausalPairs(begin, end, alike.window));
  }
  return flops;
}

}  // namespace runahead
