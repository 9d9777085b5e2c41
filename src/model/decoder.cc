#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

namespace runahead {
namespace {

constexpr int kQueryPart = 0;  // index of a part of LayerWeights::qkv
constexpr int kKeyValuePart = 1;

/// One call of Forward: what its steps share.
struct Pass {
  const DecoderSpec& spec;
  int64_t begin;
  int64_t end;
  const PositionTables& tables;
  KvCache& cache;
  AttentionExtent extent;
  Workspace& workspace;
  Ops& ops;
  Stream& stream;

  [[nodiscard]] int64_t n() const { return end - begin; }
  [[nodiscard]] HeadSteps StepsWith(const std::optional<Norm>& norm) const {
    return {norm ? &*norm : nullptr, tables.rope ? &*tables.rope : nullptr};
  }
};

/// What becomes of the columns of `qkv`, of the pass's rows in `layer`. qkv: [n, q_features + 2 * kv_features].
HeadRows HeadsOf(const Pass& pass, const LayerWeights& weights, int layer, TensorView qkv) {
  const DecoderSpec& spec = pass.spec;
  const int64_t q_end = spec.q_features();
  const int64_t k_end = q_end + spec.kv_features();
  return {qkv.Columns(0, q_end).SplitRows(spec.q_heads, spec.head_dim),
          qkv.Columns(q_end, k_end).SplitRows(spec.kv_heads, spec.head_dim),
          qkv.Columns(k_end, qkv.row_elements()).SplitRows(spec.kv_heads, spec.head_dim),
          pass.StepsWith(weights.q_norm),
          pass.StepsWith(weights.k_norm),
          pass.cache.Span(layer, pass.begin, pass.end)};
}

/// A layer's first half before the exchange: keys and values into the pass's rows of the cache. Leaves the
/// attention's norm of `hidden` in `normalized`. hidden, normalized: [n, hidden]. Returns the rotated queries [n,
/// q_heads, head_dim].
TensorView Project(const Pass& pass, const LayerWeights& weights, int layer, TensorView hidden,
                   TensorView normalized) {
  const TensorView qkv = pass.workspace.Qkv(pass.n());
  const HeadRows heads = HeadsOf(pass, weights, layer, qkv);
  pass.ops.ProjectHeads(hidden, weights.attention_norm, normalized, *weights.qkv, qkv, heads, pass.stream);
  return heads.q;
}

/// The same of the last layer: keys and values of all rows, the query of the last row on demand. Returns the rotated
/// query [1, q_heads, head_dim], or an empty view.
TensorView ProjectLastLayer(const Pass& pass, const LayerWeights& weights, TensorView hidden, TensorView normalized,
                            LastLayer last_layer) {
  const int64_t n = pass.n();
  const int layer = pass.spec.layers - 1;
  if (n == 1 && last_layer == LastLayer::kLastRow) return Project(pass, weights, layer, hidden, normalized);
  const TensorView qkv = pass.workspace.Qkv(n);
  const TensorView key_values = qkv.Columns(pass.spec.q_features(), qkv.row_elements());
  pass.ops.Normalize(hidden, weights.attention_norm, normalized, pass.stream);
  pass.ops.Matmul(normalized, *weights.qkv, kKeyValuePart, 1, key_values, pass.stream);
  const HeadRows heads = HeadsOf(pass, weights, layer, qkv);
  pass.ops.AppendKv(heads.k, heads.v, heads.key_steps, heads.rows, pass.stream);
  if (last_layer == LastLayer::kKeysAndValues) return {};
  const TensorView query = heads.q.Rows(n - 1, n);
  pass.ops.Matmul(normalized.Rows(n - 1, n), *weights.qkv, kQueryPart, 1,
                  qkv.Rows(n - 1, n).Columns(0, pass.spec.q_features()), pass.stream);
  pass.ops.PrepareQueries(query, heads.query_steps, pass.end - 1, pass.stream);
  return query;
}

/// hidden += norm(x W^T + b), where `norm` may be absent. x: [m, in]; hidden: [m, hidden].
void AddProduct(const Pass& pass, TensorView x, const Linear& linear, const std::optional<Norm>& norm,
                TensorView hidden) {
  const TensorView delta = pass.workspace.Delta(hidden.rows());
  if (!norm) return pass.ops.MatmulAdd(x, linear, delta, hidden, pass.stream);
  pass.ops.Matmul(x, linear, delta, pass.stream);
  pass.ops.Normalize(delta, *norm, delta, pass.stream);
  pass.ops.Add(hidden, delta, pass.stream);
}

/// hidden += attention of the queries, the last m positions before `end`. queries: [m, q_heads, head_dim]; hidden:
/// [m, hidden].
void Attend(const Pass& pass, const LayerWeights& weights, int layer, TensorView queries, TensorView hidden) {
  const TensorView attended = pass.workspace.Attended(queries.rows());
  const AttentionOptions options{.scale = pass.spec.attention_scale,
                                 .window = pass.spec.window(layer),
                                 .softcap = pass.spec.attention_softcap,
                                 .key_bias = pass.tables.key_bias.view,
                                 .causal = pass.extent.causal};
  pass.ops.Attention(queries, pass.end - queries.rows(), pass.cache.Span(layer, 0, pass.extent.rows), options,
                     attended.SplitRows(pass.spec.q_heads, pass.spec.head_dim), pass.stream);
  AddProduct(pass, attended, *weights.out, weights.post_attention_norm, hidden);
}

/// hidden += mlp, by blocks of rows: of `norm` of hidden, or without one of what `normalized` holds. hidden,
/// normalized: [m, hidden].
void Mlp(const Pass& pass, const LayerWeights& weights, const Norm* norm, TensorView hidden, TensorView normalized) {
  const int64_t m = hidden.rows();
  const int64_t block = MlpBlockRows(m, pass.workspace.block_rows());
  for (int64_t first = 0; first < m; first += block) {
    const int64_t last = std::min(first + block, m);
    const TensorView x = normalized.Rows(first, last);
    const TensorView gate_up = pass.workspace.GateUp(last - first);
    const TensorView activated = pass.workspace.Activated(last - first);
    if (norm != nullptr) {
      pass.ops.NormalizeMatmulActivate(hidden.Rows(first, last), *norm, x, *weights.gate_up, pass.spec.activation,
                                       gate_up, activated, pass.stream);
    } else {
      pass.ops.MatmulActivate(x, *weights.gate_up, pass.spec.activation, gate_up, activated, pass.stream);
    }
    AddProduct(pass, activated, *weights.down, weights.post_mlp_norm, hidden.Rows(first, last));
  }
}

/// Adds attention and MLP to the residual stream. queries: [m, q_heads, head_dim]; hidden: [m, hidden]; normalized:
/// [m, hidden], what the layer's attention read; it is overwritten.
void FinishLayer(const Pass& pass, const LayerWeights& weights, int layer, TensorView queries, TensorView hidden,
                 TensorView normalized) {
  switch (pass.spec.order) {
    case BlockOrder::kSequential:
      Attend(pass, weights, layer, queries, hidden);
      return Mlp(pass, weights, &*weights.mlp_norm, hidden, normalized);
    case BlockOrder::kParallel:  // both read the layer's input
      if (weights.mlp_norm) pass.ops.Normalize(hidden, *weights.mlp_norm, normalized, pass.stream);
      Attend(pass, weights, layer, queries, hidden);
      return Mlp(pass, weights, nullptr, hidden, normalized);
  }
}

/// `value` as the compute dtype holds it.
float RoundTo(DType dtype, float value) {
  return Dispatch(dtype, [&](auto zero) { return static_cast<float>(decltype(zero)(value)); });
}

/// A device's copy of host values.
Tensor CopyToDevice(Device& device, Stream& stream, const std::vector<float>& values, const Shape& shape) {
  Tensor tensor;
  tensor.memory = device.Allocate(values.size() * sizeof(float));
  tensor.view = tensor.memory.View(DType::kF32, shape);
  device.CopyFromHost(tensor.view.data(), values.data(), values.size() * sizeof(float), stream);
  stream.Synchronize();
  return tensor;
}

/// Cosines and sines of each position's angles, [positions, frequencies].
struct Angles {
  std::vector<float> cosines;
  std::vector<float> sines;
};

Angles MakeAngles(const std::vector<float>& frequencies, float magnitude, int64_t positions) {
  Angles angles;
  angles.cosines.reserve(static_cast<size_t>(positions) * frequencies.size());
  angles.sines.reserve(angles.cosines.capacity());
  for (int64_t position = 0; position < positions; ++position) {
    for (const float frequency : frequencies) {
      // The angle is a float product, as trained models and HF transformers have it; only its cosine and sine are
      // exact.
      const float angle = static_cast<float>(position) * frequency;
      angles.cosines.push_back(magnitude * static_cast<float>(std::cos(static_cast<double>(angle))));
      angles.sines.push_back(magnitude * static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
  return angles;
}

/// What each head adds to the score of each position, [q_heads, positions]: slope times position, in bf16 as Falcon
/// was trained, then scaled as the scores are.
std::vector<float> AlibiBiases(const DecoderSpec& spec, int64_t positions) {
  std::vector<float> biases;
  biases.reserve(spec.alibi_slopes.size() * static_cast<size_t>(positions));
  for (const float slope : spec.alibi_slopes) {
    for (int64_t position = 0; position < positions; ++position) {
      const BFloat16 rounded(static_cast<float>(position));
      const BFloat16 bias(static_cast<float>(BFloat16(slope)) * static_cast<float>(rounded));
      biases.push_back(spec.attention_scale * static_cast<float>(bias));
    }
  }
  return biases;
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, DType compute, DecoderWeights weights)
    : spec_(std::move(spec)), compute_(compute), weights_(std::move(weights)) {
  CHECK_GT(spec_.layers, 0);
  CHECK_EQ(weights_.layers.size(), static_cast<size_t>(spec_.layers));
  CHECK(spec_.windows.empty() || spec_.windows.size() == weights_.layers.size());
  CHECK(spec_.alibi_slopes.empty() || std::ssize(spec_.alibi_slopes) == spec_.q_heads);
}

size_t Decoder::PositionBytes(int64_t positions) const {
  const size_t angles = 2 * spec_.rope.inverse_frequencies.size();
  return static_cast<size_t>(positions) * (angles + spec_.alibi_slopes.size()) * sizeof(float);
}

PositionTables Decoder::MakePositions(Ops& ops, int64_t positions, bool long_sequence) const {
  CHECK_GT(positions, 0);
  PositionTables tables;
  tables.positions = positions;
  const std::unique_ptr<Stream> stream = ops.device().NewStream();
  const RopeSpec& rope = spec_.rope;
  const bool use_long = long_sequence && !rope.long_inverse_frequencies.empty();
  const std::vector<float>& frequencies = use_long ? rope.long_inverse_frequencies : rope.inverse_frequencies;
  if (!frequencies.empty()) {
    const Angles angles = MakeAngles(frequencies, rope.magnitude, positions);
    const Shape shape{positions, std::ssize(frequencies)};
    tables.rope = RopeTable{CopyToDevice(ops.device(), *stream, angles.cosines, shape),
                            CopyToDevice(ops.device(), *stream, angles.sines, shape)};
  }
  if (!spec_.alibi_slopes.empty()) {
    const std::vector<float> biases = AlibiBiases(spec_, positions);
    tables.key_bias = CopyToDevice(ops.device(), *stream, biases, {spec_.q_heads, positions});
  }
  return tables;
}

void Decoder::WarmUp(Ops& ops, Stream& stream) const {
  constexpr int64_t kFewestRows = 256;  // fewer are bound by memory, whatever the algorithm
  const LayerWeights& layer = weights_.layers.front();
  for (int64_t rows = kFewestRows; rows <= ops.PreferredRows() && rows < 2 * spec_.max_positions; rows *= 2) {
    ops.Tune(*layer.qkv, rows, compute_, false, stream);
    ops.Tune(*layer.out, rows, compute_, !layer.post_attention_norm, stream);
    ops.Tune(*layer.gate_up, rows, compute_, false, stream);
    ops.Tune(*layer.down, rows, compute_, !layer.post_mlp_norm, stream);
  }
  const int64_t tokens = std::min(kFewestRows, spec_.max_positions - 1);
  if (tokens < 1) return;
  const std::vector<int32_t> prompt(static_cast<size_t>(tokens), 0);
  const PositionTables tables = MakePositions(ops, tokens + 1, false);
  KvCache cache(ops.device(), spec_.kv_shape(compute_), tokens + 1);
  Workspace workspace(ops.device(), spec_, compute_, tokens);
  NoExchange none;
  CHECK(Forward(prompt, 0, LastLayer::kLastRow, tables, cache, none, workspace, ops, stream).ok());
  CHECK(Forward(std::span(prompt).first(1), tokens, LastLayer::kLastRow, tables, cache, none, workspace, ops, stream)
            .ok());
  if (const std::unique_ptr<ChosenToken> chosen = ops.NewChosenToken()) {
    ops.ChooseLikeliest(workspace.Logits(), *chosen, stream);
    Forward(*chosen, tokens, tables, cache, workspace, ops, stream);
    (void)chosen->Wait();
  }
  if (tables.key_bias.view.data() == nullptr) WarmUpAttention(workspace, ops, stream);
  stream.Synchronize();
}

void Decoder::WarmUpAttention(const Workspace& workspace, Ops& ops, Stream& stream) const {
  constexpr int64_t kFarthest = 1 << 16;
  const int64_t farthest = std::min(kFarthest, spec_.max_positions);
  const std::set<int64_t> windows(spec_.windows.begin(), spec_.windows.end());
  const TensorView queries =
      workspace.Qkv(workspace.rows()).Columns(0, spec_.q_features()).SplitRows(spec_.q_heads, spec_.head_dim);
  const TensorView attended = workspace.Attended(workspace.rows()).SplitRows(spec_.q_heads, spec_.head_dim);
  for (int64_t rows = workspace.rows(); rows < 2 * farthest; rows *= 2) {
    const int64_t reach = std::min(rows, farthest);
    const KvShape one_layer{1, spec_.kv_heads, spec_.head_dim, compute_};
    // Where memory is short, the first long prompt pays instead.
    if (2 * one_layer.BytesPerToken() * static_cast<size_t>(reach) > ops.device().FreeBytes()) return;
    const KvCache cache(ops.device(), one_layer, reach);
    for (const int64_t window : windows.empty() ? std::set<int64_t>{0} : windows) {
      const AttentionOptions options{.scale = spec_.attention_scale,
                                     .window = window,
                                     .softcap = spec_.attention_softcap,
                                     .key_bias = {},
                                     .causal = CausalWork::kSkip};
      ops.Attention(queries, reach - queries.rows(), cache.Span(0, 0, reach), options, attended, stream);
    }
  }
}

void Decoder::CheckPass(int64_t begin, int64_t n, const PositionTables& tables, const KvCache& cache,
                        const Workspace& workspace) const {
  CHECK(0 <= begin && 0 < n);
  CHECK_LE(n, workspace.rows());
  CHECK_LE(begin + n, cache.capacity());
  CHECK_LE(begin + n, tables.positions);
}

Status Decoder::Forward(std::span<const int32_t> tokens, int64_t begin, LastLayer last_layer,
                        const PositionTables& tables, KvCache& cache, Exchange& exchange, Workspace& workspace,
                        Ops& ops, Stream& stream) const {
  const auto n = static_cast<int64_t>(tokens.size());
  CheckPass(begin, n, tables, cache, workspace);
  ops.Embed(tokens, weights_.embedding.view, RoundTo(compute_, spec_.embedding_scale), workspace.Hidden(n), stream);
  return RunLayers(begin, n, last_layer, tables, cache, exchange, workspace, ops, stream);
}

void Decoder::Forward(const ChosenToken& token, int64_t begin, const PositionTables& tables, KvCache& cache,
                      Workspace& workspace, Ops& ops, Stream& stream) const {
  CheckPass(begin, 1, tables, cache, workspace);
  ops.EmbedChosen(token, weights_.embedding.view, RoundTo(compute_, spec_.embedding_scale), workspace.Hidden(1),
                  stream);
  NoExchange none;
  const Status status = RunLayers(begin, 1, LastLayer::kLastRow, tables, cache, none, workspace, ops, stream);
  CHECK(status.ok());  // only an exchange can fail
}

Status Decoder::RunLayers(int64_t begin, int64_t n, LastLayer last_layer, const PositionTables& tables,
                          KvCache& cache, Exchange& exchange, Workspace& workspace, Ops& ops, Stream& stream) const {
  const int64_t end = begin + n;
  const Pass pass{spec_, begin, end, tables, cache, exchange.Extent(end), workspace, ops, stream};
  TensorView hidden = workspace.Hidden(n);
  TensorView normalized = workspace.Normalized(n);
  for (int layer = 0; layer < spec_.layers; ++layer) {
    const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
    const bool last = layer == spec_.layers - 1;
    const TensorView queries = last ? ProjectLastLayer(pass, weights, hidden, normalized, last_layer)
                                    : Project(pass, weights, layer, hidden, normalized);
    if (Status status = exchange.LayerReady(layer, stream); !status.ok()) return status;
    if (last && last_layer == LastLayer::kKeysAndValues) return Status::Ok();
    if (last) {  // only the last row matters from here on
      hidden = hidden.Rows(n - 1, n);
      normalized = normalized.Rows(n - 1, n);
    }
    FinishLayer(pass, weights, layer, queries, hidden, normalized);
  }
  ops.Normalize(hidden, weights_.final_norm, normalized, stream);
  ops.Matmul(normalized, *weights_.head, workspace.Logits(), stream);
  if (spec_.logit_softcap > 0) ops.Softcap(workspace.Logits(), spec_.logit_softcap, stream);
  return Status::Ok();
}

}  // namespace runahead
