#include "ops/ops.h"

namespace runahead {

void Ops::PrepareHeads(const HeadRows& heads, Stream& stream) {
  AppendKv(heads.k, heads.v, heads.key_steps, heads.rows, stream);
  PrepareQueries(heads.q, heads.query_steps, heads.rows.begin, stream);
}

void Ops::ProjectHeads(TensorView x, const Norm& norm, TensorView normalized, const Linear& linear, TensorView qkv,
                       const HeadRows& heads, Stream& stream) {
  Normalize(x, norm, normalized, stream);
  Matmul(normalized, linear, qkv, stream);
  PrepareHeads(heads, stream);
}

void Ops::MatmulAdd(TensorView x, const Linear& linear, TensorView product, TensorView sum, Stream& stream) {
  Matmul(x, linear, product, stream);
  Add(sum, product, stream);
}

void Ops::MatmulActivate(TensorView x, const Linear& linear, Activation activation, TensorView product,
                         TensorView out, Stream& stream) {
  Matmul(x, linear, product, stream);
  if (product.row_elements() == out.row_elements()) return Activate(activation, product, out, stream);
  GatedActivation(activation, product, out, stream);
}

void Ops::NormalizeMatmulActivate(TensorView x, const Norm& norm, TensorView normalized, const Linear& linear,
                                  Activation activation, TensorView product, TensorView out, Stream& stream) {
  Normalize(x, norm, normalized, stream);
  MatmulActivate(normalized, linear, activation, product, out, stream);
}

}  // namespace runahead
