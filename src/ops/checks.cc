#include "ops/checks.h"

#include "base/check.h"

namespace runahead {

void CheckParts(const std::vector<LinearPart>& parts) {
  CHECK(!parts.empty());
  const int64_t in_features = parts.front().weights.front().row_elements();
  for (const LinearPart& part : parts) {
    CHECK(!part.weights.empty());
    CHECK(part.biases.empty() || part.biases.size() == part.weights.size());
    for (size_t i = 0; i < part.weights.size(); ++i) {
      CHECK_EQ(part.weights[i].shape().rank(), 2);
      CHECK_EQ(part.weights[i].row_elements(), in_features);
      if (!part.biases.empty()) CHECK_EQ(part.biases[i].shape().elements(), part.weights[i].rows());
    }
  }
}

void CheckEmbed(std::span<const int32_t> tokens, TensorView table, TensorView out) {
  CHECK_EQ(static_cast<int64_t>(tokens.size()), out.rows());
  CHECK_EQ(table.row_elements(), out.row_elements());
  for (const int32_t token : tokens) CHECK(0 <= token && token < table.rows());
}

void CheckNormalize(TensorView x, const Norm& norm, TensorView out) {
  CHECK_EQ(x.rows(), out.rows());
  CHECK_EQ(x.row_elements(), out.row_elements());
  CHECK(x.dtype() == out.dtype());
  CHECK_EQ(norm.weight.view.shape().elements(), x.row_elements());
  CHECK(norm.weight.view.dtype() == DType::kF32);
  if (norm.bias.view.data() != nullptr) {
    CHECK_EQ(norm.bias.view.shape().elements(), x.row_elements());
    CHECK(norm.bias.view.dtype() == DType::kF32);
  }
}

void CheckMatmul(TensorView x, const Linear& linear, DType compute, int first, int count, TensorView y) {
  CHECK(0 <= first && 0 < count && first + count <= linear.parts());
  CHECK(x.dtype() == compute);
  CHECK(y.dtype() == compute || y.dtype() == DType::kF32);
  CHECK_EQ(x.rows(), y.rows());
  CHECK_EQ(x.row_elements(), linear.in_features());
  CHECK_EQ(y.row_elements(), linear.out_features(first, count));
}

void CheckAdd(TensorView x, TensorView delta) {
  CHECK_EQ(x.rows(), delta.rows());
  CHECK_EQ(x.row_elements(), delta.row_elements());
  CHECK(x.dtype() == delta.dtype());
}

void CheckHeads(TensorView q, const HeadSteps& steps, int64_t position) {
  CHECK_EQ(q.shape().rank(), 3);
  CHECK_GE(position, 0);
  if (steps.norm != nullptr) {
    const int64_t weights = steps.norm->weight.view.shape().elements();
    CHECK(weights == q.shape()[2] || weights == q.row_elements());
    if (steps.norm->bias.view.data() != nullptr) CHECK_EQ(steps.norm->bias.view.shape().elements(), weights);
    CHECK(steps.norm->weight.view.dtype() == DType::kF32);
  }
  if (steps.rope != nullptr) {
    CHECK_LE(steps.rope->rotary_dim(), q.shape()[2]);
    CHECK_LE(position + q.rows(), steps.rope->positions());
  }
}

void CheckAppendKv(TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows) {
  CheckHeads(k, steps, rows.begin);
  CHECK_EQ(k.rows(), rows.rows());
  CHECK_EQ(v.rows(), rows.rows());
  CHECK_EQ(k.row_elements(), rows.k.row_elements());
  CHECK_EQ(v.row_elements(), rows.v.row_elements());
  CHECK(k.dtype() == rows.k.dtype() && v.dtype() == rows.v.dtype());
  CHECK(k.dtype() == v.dtype());
}

void CheckAttention(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options,
                    TensorView out) {
  CHECK_EQ(q.shape().rank(), 3);
  CHECK_EQ(keys.k.shape().rank(), 3);
  CHECK_GE(position, 0);
  CHECK_LE(position + q.rows(), keys.rows);
  CHECK_EQ(q.rows(), out.rows());
  CHECK_EQ(q.shape()[1], out.shape()[1]);
  CHECK_EQ(out.shape()[2], keys.v.shape()[2]);
  CHECK_EQ(keys.k.shape()[1], keys.v.shape()[1]);
  if (const TensorView& rotated = options.rotated; rotated.data() != nullptr) {
    CHECK_EQ(q.shape()[2], keys.v.shape()[2]);
    CHECK_EQ(rotated.shape()[2], keys.k.shape()[2]);
    CHECK_EQ(rotated.shape()[1], q.shape()[1]);
    CHECK_EQ(rotated.rows(), q.rows());
    CHECK(rotated.dtype() == q.dtype());
  } else {
    CHECK_EQ(q.shape()[2], keys.k.shape()[2]);
  }
  CHECK_EQ(q.shape()[1] % keys.k.shape()[1], 0);
  CHECK(q.dtype() == keys.k.dtype() && q.dtype() == keys.v.dtype() && q.dtype() == out.dtype());
  CHECK_GE(options.window, 0);
  CHECK_GE(options.softcap, 0.0f);
  if (options.sinks.data() != nullptr) {
    CHECK(options.sinks.dtype() == DType::kF32);
    CHECK_EQ(options.sinks.shape().elements(), q.shape()[1]);
  }
  if (options.key_bias.data() != nullptr) {
    CHECK_EQ(options.softcap, 0.0f);
    CHECK(options.key_bias.dtype() == DType::kF32);
    CHECK_EQ(options.key_bias.rows(), q.shape()[1]);
    CHECK_GE(options.key_bias.row_elements(), keys.rows);
  }
}

void CheckGatedActivation(TensorView gate_up, TensorView out) {
  CHECK_EQ(gate_up.rows(), out.rows());
  CHECK_EQ(gate_up.row_elements(), 2 * out.row_elements());
  CHECK(gate_up.dtype() == out.dtype());
}

void CheckActivate(TensorView x, TensorView out) {
  CHECK_EQ(x.rows(), out.rows());
  CHECK_EQ(x.row_elements(), out.row_elements());
  CHECK(x.dtype() == out.dtype());
}

void CheckMixture(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
                  TensorView sum) {
  CHECK_EQ(x.rows(), sum.rows());
  CHECK_EQ(x.row_elements(), sum.row_elements());
  CHECK(x.dtype() == sum.dtype());
  CHECK(0 < mixture.chosen && mixture.chosen <= mixture.choices());
  CHECK(scores.dtype() == DType::kF32);
  CHECK_EQ(scores.rows(), x.rows());
  const Routing& routing = mixture.routing;
  CHECK(0 < routing.chosen_groups && routing.chosen_groups <= routing.groups);
  CHECK_EQ(mixture.choices() % routing.groups, 0);
  const int64_t group = mixture.choices() / routing.groups;
  CHECK(routing.chosen_groups == routing.groups || routing.group_best <= group);
  CHECK_LE(mixture.chosen, routing.chosen_groups * group);
  if (mixture.choice_bias.data() != nullptr) {
    CHECK(mixture.choice_bias.dtype() == DType::kF32);
    CHECK_EQ(mixture.choice_bias.shape().elements(), mixture.choices());
  }
  const int64_t gates = scores.row_elements() - mixture.choices();
  CHECK(gates == 0 || (gates == 1 && mixture.shared));
  for (const TensorView& view : {memory.gathered, memory.product, memory.activated, memory.results}) {
    CHECK(view.dtype() == x.dtype());
    CHECK_GE(view.rows(), x.rows());
  }
  CHECK_EQ(memory.gathered.row_elements(), x.row_elements());
  CHECK_EQ(memory.results.row_elements(), x.row_elements());
  CHECK_GE(memory.results.rows(), x.rows() * mixture.active());
  for (const Expert& expert : mixture.experts) {
    CHECK_EQ(expert.gate_up->out_features(), 2 * expert.down->in_features());
    CHECK_GE(memory.product.row_elements(), expert.gate_up->out_features());
    CHECK_GE(memory.activated.row_elements(), expert.down->in_features());
  }
}

void CheckSoftcap(TensorView x, float cap) {
  CHECK(x.dtype() == DType::kF32);
  CHECK_GT(cap, 0.0f);
}

}  // namespace runahead
