#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace runahead {
namespace {

constexpr int kQueryPart = 0;  // of LayerWeights::qkv
constexpr int kKeyValuePart = 1;

/// One call of Forward: what its steps share.
struct Pass {
  const DecoderSpec& spec;
  int64_t begin;
  int64_t end;
  const RopeTable& rope;
  KvCache& cache;
  AttentionExtent extent;
  Workspace& workspace;
  Ops& ops;
  Stream& stream;

  [[nodiscard]] int64_t n() const { return end - begin; }
};

/// Writes k and v, which lie side by side, into the pass's rows of the cache. key_values: [n, 2 * kv_features].
void Append(const Pass& pass, int layer, TensorView key_values) {
  const int64_t features = pass.spec.kv_features();
  const TensorView k = key_values.Columns(0, features).SplitRows(pass.spec.kv_heads, pass.spec.head_dim);
  const TensorView v = key_values.Columns(features, 2 * features).SplitRows(pass.spec.kv_heads, pass.spec.head_dim);
  pass.ops.AppendKv(k, v, pass.rope, pass.cache.Span(layer, pass.begin, pass.end), pass.stream);
}

/// The last layer's first half before the exchange: keys and values of all rows, the query of the last row on demand.
/// normalized: [n, hidden]. Returns the rotated query [1, q_heads, head_dim], or an empty view.
TensorView ProjectLastLayer(const Pass& pass, const LayerWeights& weights, TensorView normalized,
                            LastLayer last_layer) {
  const int64_t n = pass.n();
  const TensorView qkv = pass.workspace.Qkv(n);
  const TensorView key_values = qkv.Columns(pass.spec.q_features(), qkv.row_elements());
  pass.ops.Matmul(normalized, *weights.qkv, kKeyValuePart, 1, key_values, pass.stream);
  Append(pass, pass.spec.layers - 1, key_values);
  if (last_layer == LastLayer::kKeysAndValues) return {};
  const TensorView query = qkv.Rows(n - 1, n).Columns(0, pass.spec.q_features());
  pass.ops.Matmul(normalized.Rows(n - 1, n), *weights.qkv, kQueryPart, 1, query, pass.stream);
  const TensorView heads = query.SplitRows(pass.spec.q_heads, pass.spec.head_dim);
  pass.ops.Rotate(heads, pass.rope, pass.end - 1, pass.stream);
  return heads;
}

/// Any other layer's first half before the exchange. Returns the rotated queries [n, q_heads, head_dim].
TensorView Project(const Pass& pass, const LayerWeights& weights, int layer, TensorView normalized) {
  const TensorView qkv = pass.workspace.Qkv(pass.n());
  pass.ops.Matmul(normalized, *weights.qkv, qkv, pass.stream);
  Append(pass, layer, qkv.Columns(pass.spec.q_features(), qkv.row_elements()));
  const TensorView heads = qkv.Columns(0, pass.spec.q_features()).SplitRows(pass.spec.q_heads, pass.spec.head_dim);
  pass.ops.Rotate(heads, pass.rope, pass.begin, pass.stream);
  return heads;
}

/// delta = attention of the queries, the last m positions before `end`. queries: [m, q_heads, head_dim]; delta:
/// [m, hidden].
void Attend(const Pass& pass, const LayerWeights& weights, int layer, TensorView queries, TensorView delta) {
  const TensorView attended = pass.workspace.Attended(queries.rows());
  const AttentionOptions options{.scale = pass.spec.attention_scale,
                                 .window = pass.spec.window(layer),
                                 .softcap = pass.spec.attention_softcap,
                                 .causal = pass.extent.causal};
  pass.ops.Attention(queries, pass.end - queries.rows(), pass.cache.Span(layer, 0, pass.extent.rows), options,
                     attended.SplitRows(pass.spec.q_heads, pass.spec.head_dim), pass.stream);
  pass.ops.Matmul(attended, *weights.out, delta, pass.stream);
}

/// delta = mlp(normalized), by blocks of rows. normalized, delta: [m, hidden].
void Mlp(const Pass& pass, const LayerWeights& weights, TensorView normalized, TensorView delta) {
  const int64_t m = normalized.rows();
  const int64_t block = MlpBlockRows(m);
  for (int64_t first = 0; first < m; first += block) {
    const int64_t last = std::min(first + block, m);
    const TensorView gate_up = pass.workspace.GateUp(last - first);
    const TensorView activated = pass.workspace.Activated(last - first);
    pass.ops.Matmul(normalized.Rows(first, last), *weights.gate_up, gate_up, pass.stream);
    pass.ops.GatedActivation(pass.spec.activation, gate_up, activated, pass.stream);
    pass.ops.Matmul(activated, *weights.down, delta.Rows(first, last), pass.stream);
  }
}

/// A device's copy of host values.
Tensor CopyToDevice(Device& device, Stream& stream, const std::vector<float>& values, const Shape& shape) {
  Tensor tensor;
  tensor.memory = device.Allocate(values.size() * sizeof(float));
  tensor.view = tensor.memory.View(DType::kF32, shape);
  device.CopyFromHost(tensor.view.data(), values.data(), values.size() * sizeof(float), stream);
  return tensor;
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, DType compute, DecoderWeights weights)
    : spec_(std::move(spec)), compute_(compute), weights_(std::move(weights)) {
  CHECK_GT(spec_.layers, 0);
  CHECK_EQ(weights_.layers.size(), static_cast<size_t>(spec_.layers));
  CHECK(spec_.windows.empty() || spec_.windows.size() == weights_.layers.size());
}

RopeTable Decoder::MakeRope(Ops& ops, int64_t positions) const {
  CHECK_GT(positions, 0);
  const std::vector<float>& frequencies = spec_.rope.inverse_frequencies;
  std::vector<float> cosines;
  std::vector<float> sines;
  cosines.reserve(static_cast<size_t>(positions) * frequencies.size());
  sines.reserve(cosines.capacity());
  for (int64_t position = 0; position < positions; ++position) {
    for (const float frequency : frequencies) {
      // The angle is a float product, as trained models and HF transformers have it; only its cosine and sine are
      // exact.
      const float angle = static_cast<float>(position) * frequency;
      cosines.push_back(spec_.rope.magnitude * static_cast<float>(std::cos(static_cast<double>(angle))));
      sines.push_back(spec_.rope.magnitude * static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
  const Shape shape{positions, static_cast<int64_t>(frequencies.size())};
  const std::unique_ptr<Stream> stream = ops.device().NewStream();
  RopeTable table{CopyToDevice(ops.device(), *stream, cosines, shape),
                  CopyToDevice(ops.device(), *stream, sines, shape)};
  stream->Synchronize();
  return table;
}

Status Decoder::Forward(std::span<const int32_t> tokens, int64_t begin, LastLayer last_layer, const RopeTable& rope,
                        KvCache& cache, Exchange& exchange, Workspace& workspace, Ops& ops, Stream& stream) const {
  const auto n = static_cast<int64_t>(tokens.size());
  const int64_t end = begin + n;
  CHECK(0 <= begin && 0 < n);
  CHECK_LE(n, workspace.rows());
  CHECK_LE(end, cache.capacity());
  CHECK_LE(end, rope.positions());
  const Pass pass{spec_, begin, end, rope, cache, exchange.Extent(end), workspace, ops, stream};

  TensorView hidden = workspace.Hidden(n);
  TensorView normalized = workspace.Normalized(n);
  ops.Embed(tokens, weights_.embedding.view, spec_.embedding_scale, hidden, stream);
  ops.Normalize(hidden, weights_.layers[0].attention_norm, normalized, stream);
  for (int layer = 0; layer < spec_.layers; ++layer) {
    const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
    const bool last = layer == spec_.layers - 1;
    const TensorView queries =
        last ? ProjectLastLayer(pass, weights, normalized, last_layer) : Project(pass, weights, layer, normalized);
    if (Status status = exchange.LayerReady(layer, stream); !status.ok()) return status;
    if (last && last_layer == LastLayer::kKeysAndValues) return Status::Ok();
    if (last) {  // from here on only the last row matters
      hidden = hidden.Rows(n - 1, n);
      normalized = normalized.Rows(n - 1, n);
    }
    const TensorView delta = workspace.Delta(hidden.rows());
    Attend(pass, weights, layer, queries, delta);
    ops.AddNormalize(hidden, delta, weights.mlp_norm, normalized, stream);
    Mlp(pass, weights, normalized, delta);
    const Norm& next = last ? weights_.final_norm : weights_.layers[static_cast<size_t>(layer) + 1].attention_norm;
    ops.AddNormalize(hidden, delta, next, normalized, stream);
  }
  ops.Matmul(normalized, *weights_.head, workspace.Logits(), stream);
  return Status::Ok();
}

}  // namespace runahead
