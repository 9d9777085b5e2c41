#include "engine/analytic_cost.h"

namespace runahead {

ChunkCost AnalyticCost(const DecoderSpec& spec, double attention_slowdown) {
  const auto features =
      static_cast<double>(2 * spec.q_features() + 2 * spec.kv_features() + spec.mlp_in_features() + spec.ffn);
  const double multiply_add = 2;
  const double products_per_pair = 2;  // q.k and p.v
  return {multiply_add * features * static_cast<double>(spec.hidden),
          multiply_add * products_per_pair * static_cast<double>(spec.q_features()) * attention_slowdown};
}

}  // namespace runahead
