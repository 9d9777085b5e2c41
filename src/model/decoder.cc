#include "model/decoder.h"

#include <algorithm>
#include <set>
#include <utility>

#include "model/attention_steps.h"
#include "model/pass.h"

namespace runahead {
namespace {

enum class Head : uint8_t { kQuery, kKey };

/// The rotation of a layer's queries or keys, or null.
const RopeTable* RopeOf(const DecoderSpec& spec, const PositionTables& tables, int layer, Head head) {
  const auto get = [](const std::optional<RopeTable>& table) { return table ? &*table : nullptr; };
  switch (spec.layer_rope(layer)) {
    case LayerRope::kMain:
      return get(head == Head::kQuery && tables.query_rope ? tables.query_rope : tables.rope);
    case LayerRope::kLocal:
      return get(tables.local_rope);
    case LayerRope::kNone:
      return nullptr;
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown rope");
}

HeadSteps StepsOf(const DecoderSpec& spec, const LayerWeights& weights, int layer, const Chunk& chunk, Head head) {
  const std::optional<Norm>& norm = head == Head::kQuery ? weights.q_norm : weights.k_norm;
  const bool of_heads = norm && spec.qk_norm == QkNorm::kHead;
  return {of_heads ? &*norm : nullptr, RopeOf(spec, *chunk.tables, layer, head)};
}

/// What a layer's attention reads: the norm of `hidden`, in `normalized`, or `hidden` itself.
TensorView AttentionInput(const Pass& pass, const LayerWeights& weights, TensorView hidden, TensorView normalized) {
  if (!weights.attention_norm) return hidden;
  pass.ops.Normalize(hidden, *weights.attention_norm, normalized, pass.stream);
  return normalized;
}

/// Calls visit(chunk, first row of the batch, begin, end) for positions [begin, end) of each chunk whose rows follow
/// each other in its cache.
template <typename Visit>
void ForStraightRows(const Pass& pass, const Visit& visit) {
  int64_t first = 0;
  for (const Chunk& chunk : pass.batch) {
    for (int64_t begin = chunk.begin; begin < chunk.end();) {
      const int64_t end = chunk.cache.pages().StraightEnd(begin, chunk.end());
      visit(chunk, first, begin, end);
      first += end - begin;
      begin = end;
    }
  }
}

/// What becomes of a layer's queries, keys and values, rows of positions [begin, end) of `chunk`. qkv: [end - begin,
/// query_columns + kv_columns]; queries: [end - begin, q_heads * query_dim], or empty.
HeadRows HeadsOf(const DecoderSpec& spec, const LayerWeights& weights, int layer, const Chunk& chunk, int64_t begin,
                 int64_t end, TensorView qkv, TensorView queries) {
  return {queries.data() != nullptr ? TurningOf(spec, queries) : TensorView(),
          KeysOf(spec, qkv),
          ValuesOf(spec, qkv),
          StepsOf(spec, weights, layer, chunk, Head::kQuery),
          StepsOf(spec, weights, layer, chunk, Head::kKey),
          chunk.cache.Span(layer, begin, end)};
}

/// A layer's first half before the exchanges: keys and values into the caches. Leaves the attention's norm of
/// `hidden` in `normalized`. hidden, normalized: [rows, hidden]. Returns the rotated queries [rows, q_heads *
/// query_dim].
TensorView Project(const Pass& pass, const LayerWeights& weights, int layer, TensorView hidden,
                   TensorView normalized) {
  const TensorView qkv = pass.workspace.Qkv(pass.rows);
  const TensorView queries = QueriesOf(pass, qkv);
  const auto heads_of = [&](const Chunk& chunk, int64_t first, int64_t begin, int64_t end) {
    return HeadsOf(pass.spec, weights, layer, chunk, begin, end, qkv.Rows(first, first + end - begin),
                   queries.Rows(first, first + end - begin));
  };
  const Chunk& chunk = pass.batch.front();
  const bool at_once = weights.attention_norm && pass.spec.qk_norm == QkNorm::kHead;
  if (at_once && pass.batch.size() == 1 && chunk.cache.pages().StraightEnd(chunk.begin, chunk.end()) == chunk.end()) {
    pass.ops.ProjectHeads(hidden, *weights.attention_norm, normalized, *weights.qkv, qkv,
                          heads_of(chunk, 0, chunk.begin, chunk.end()), pass.stream);
  } else {
    pass.ops.Matmul(AttentionInput(pass, weights, hidden, normalized), *weights.qkv, qkv, pass.stream);
    MakeQueries(pass, weights, qkv);
    NormalizeKeys(pass, weights, qkv);
    std::vector<HeadRows> pieces;
    ForStraightRows(pass, [&](const Chunk& own, int64_t first, int64_t begin, int64_t end) {
      pieces.push_back(heads_of(own, first, begin, end));
    });
    pass.ops.PrepareHeadsOfMany(pieces, pass.stream);
  }
  return queries;
}

/// The same of the last layer, where a row without wanted logits needs only keys and values. Narrows hidden and
/// normalized to the kept rows; returns their rotated queries [kept, q_heads * query_dim].
TensorView ProjectLastLayer(const Pass& pass, const LayerWeights& weights, TensorView& hidden,
                            TensorView& normalized) {
  const auto kept = std::ssize(pass.kept);
  const int layer = pass.spec.layers - 1;
  if (kept == pass.rows) return Project(pass, weights, layer, hidden, normalized);
  const TensorView qkv = pass.workspace.Qkv(pass.rows);
  const TensorView key_values = qkv.Columns(pass.spec.query_columns(), qkv.row_elements());
  TensorView input = AttentionInput(pass, weights, hidden, normalized);
  pass.ops.Matmul(input, *weights.qkv, kKeyValuePart, 1, key_values, pass.stream);
  NormalizeKeys(pass, weights, qkv);
  std::vector<HeadRows> pieces;
  ForStraightRows(pass, [&](const Chunk& own, int64_t first, int64_t begin, int64_t end) {
    const TensorView rows = qkv.Rows(first, first + end - begin);
    pieces.push_back(HeadsOf(pass.spec, weights, layer, own, begin, end, rows, {}));
  });
  pass.ops.PrepareHeadsOfMany(pieces, pass.stream);
  if (kept == 0) return {};
  hidden = pass.ops.KeepRows(hidden, pass.kept, pass.stream);
  normalized =
      weights.attention_norm ? pass.ops.KeepRows(normalized, pass.kept, pass.stream) : normalized.Rows(0, kept);
  input = weights.attention_norm ? normalized : hidden;
  const TensorView columns = qkv.Rows(0, kept).Columns(0, pass.spec.query_columns());
  pass.ops.Matmul(input, *weights.qkv, kQueryPart, 1, columns, pass.stream);
  const TensorView queries = MakeQueries(pass, weights, qkv.Rows(0, kept));
  std::vector<QueryRow> rows;
  for (const Chunk& chunk : pass.batch) {
    if (!chunk.logits()) continue;
    rows.push_back({StepsOf(pass.spec, weights, layer, chunk, Head::kQuery), chunk.end() - 1});
  }
  pass.ops.PrepareQueriesOfMany(TurningOf(pass.spec, queries), rows, pass.stream);
  return queries;
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

/// hidden += what the experts of a layer make of x. x, hidden: [n, hidden].
void AddExperts(const Pass& pass, const MixtureWeights& weights, TensorView x, TensorView hidden) {
  const MixtureSpec& spec = pass.spec.mixture;
  const Mixture mixture{.experts = weights.experts,
                        .chosen = spec.chosen,
                        .shared = spec.shared_ffn > 0,
                        .renormalise = spec.renormalise,
                        .routing = spec.routing,
                        .choice_bias = weights.choice_bias.view,
                        .activation = pass.spec.activation,
                        .clamped = spec.clamped};
  const TensorView scores = pass.workspace.Scores(x.rows());
  pass.ops.Matmul(x, *weights.router, scores, pass.stream);
  pass.ops.AddMixture(x, scores, mixture, pass.workspace.Mixture(x.rows()), hidden, pass.stream);
}

/// hidden += mlp, by blocks of rows: of `norm` of hidden, or without one of `input`. hidden, input: [m, hidden].
void Mlp(const Pass& pass, const LayerWeights& weights, const Norm* norm, TensorView hidden, TensorView input) {
  const int64_t m = hidden.rows();
  const int64_t block = MlpBlockRows(m, pass.workspace.block_rows());
  for (int64_t first = 0; first < m; first += block) {
    const int64_t last = std::min(first + block, m);
    const TensorView x = input.Rows(first, last);
    if (weights.mixture) {
      if (norm != nullptr) pass.ops.Normalize(hidden.Rows(first, last), *norm, x, pass.stream);
      AddExperts(pass, *weights.mixture, x, hidden.Rows(first, last));
      continue;
    }
    const TensorView gate_up = pass.workspace.GateUp(last - first).Columns(0, weights.gate_up->out_features());
    const TensorView activated = pass.workspace.Activated(last - first).Columns(0, pass.spec.ffn);
    if (norm != nullptr) {
      pass.ops.NormalizeMatmulActivate(hidden.Rows(first, last), *norm, x, *weights.gate_up, pass.spec.activation,
                                       gate_up, activated, pass.stream);
    } else {
      pass.ops.MatmulActivate(x, *weights.gate_up, pass.spec.activation, gate_up, activated, pass.stream);
    }
    AddProduct(pass, activated, *weights.down, weights.post_mlp_norm, hidden.Rows(first, last));
  }
}

/// Adds attention and MLP to the residual stream. queries: [m, q_heads * query_dim]; hidden: [m, hidden]; normalized:
/// [m, hidden], what the layer's attention read; it is overwritten.
void FinishLayer(const Pass& pass, const LayerWeights& weights, int layer, TensorView queries, TensorView hidden,
                 TensorView normalized) {
  const auto add_attention = [&] {
    AddProduct(pass, Attend(pass, weights, layer, queries), *weights.out, weights.post_attention_norm, hidden);
  };
  switch (pass.spec.order) {
    case BlockOrder::kSequential:
      add_attention();
      if (!weights.mlp_norm) return Mlp(pass, weights, nullptr, hidden, hidden);
      return Mlp(pass, weights, &*weights.mlp_norm, hidden, normalized);
    case BlockOrder::kParallel:  // both read the layer's input
      if (weights.mlp_norm) pass.ops.Normalize(hidden, *weights.mlp_norm, normalized, pass.stream);
      add_attention();
      return Mlp(pass, weights, nullptr, hidden, normalized);
  }
}

/// `value` as the compute dtype holds it.
float RoundTo(DType dtype, float value) {
  return Dispatch(dtype, [&](auto zero) { return static_cast<float>(decltype(zero)(value)); });
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, DType compute, DecoderWeights weights)
    : spec_(std::move(spec)), compute_(compute), weights_(std::move(weights)) {
  CHECK_GT(spec_.layers, 0);
  CHECK_EQ(weights_.layers.size(), static_cast<size_t>(spec_.layers));
  CHECK(spec_.layer_ropes.empty() || spec_.layer_ropes.size() == weights_.layers.size());
  CHECK(spec_.windows.empty() || spec_.windows.size() == weights_.layers.size());
  for (int i = 0; i < spec_.layers; ++i) {
    const LayerWeights& layer = weights_.layers[static_cast<size_t>(i)];
    CHECK_EQ(layer.mixture.has_value(), spec_.mixes(i));
    CHECK(!layer.mixture || !layer.post_mlp_norm);
    CHECK_EQ(layer.latent.has_value(), spec_.is_latent());
    CHECK_EQ(layer.sinks.view.data() != nullptr, spec_.sinks);
  }
  CHECK(spec_.alibi_slopes.empty() || std::ssize(spec_.alibi_slopes) == spec_.q_heads);
}

void Decoder::Tune(Ops& ops, Stream& stream) const {
  constexpr size_t kMostLayers = 16;  // enough that no cache holds their weights
  const std::span<const LayerWeights> layers =
      std::span(weights_.layers).first(std::min(weights_.layers.size(), kMostLayers));
  const auto tune = [&](std::unique_ptr<Linear> LayerWeights::*part, int64_t rows, bool adds) {
    std::vector<const Linear*> alike;
    for (const LayerWeights& layer : layers) {
      if (layer.*part != nullptr) alike.push_back((layer.*part).get());
    }
    if (!alike.empty()) ops.Tune(alike, rows, compute_, adds, stream);
  };
  const LayerWeights& layer = layers.front();
  const Linear* const head = weights_.head.get();
  for (int64_t rows = 2; rows <= ops.PreferredRows() && rows < 2 * spec_.max_positions; rows *= 2) {
    tune(&LayerWeights::qkv, rows, false);
    tune(&LayerWeights::out, rows, !layer.post_attention_norm);
    tune(&LayerWeights::gate_up, rows, false);
    tune(&LayerWeights::down, rows, !layer.post_mlp_norm);
    constexpr int64_t kMostLogits = 256;
    if (rows <= kMostLogits) ops.Tune(std::span(&head, 1), rows, DType::kF32, false, stream);
  }
}

void Decoder::WarmUp(Ops& ops, Stream& stream) const {
  constexpr int64_t kFewestRows = 256;  // rows of the shortest prompt that is tried
  Tune(ops, stream);
  const int64_t tokens = std::min(kFewestRows, spec_.max_positions - 1);
  if (tokens < 1) return;
  const std::vector<int32_t> prompt(static_cast<size_t>(tokens), 0);
  const PositionTables tables = MakePositions(ops, tokens + 1, false);
  KvCache cache(ops.device(), spec_.kv_shape(compute_), tokens + 1);
  Workspace workspace(ops.device(), spec_, compute_, tokens);
  Chunk chunk{.tokens = prompt, .tables = &tables, .cache = cache};
  CHECK(Forward(chunk, workspace, ops, stream).ok());
  chunk.tokens = chunk.tokens.first(1);
  chunk.begin = tokens;
  CHECK(Forward(chunk, workspace, ops, stream).ok());
  if (const std::unique_ptr<ChosenToken> chosen = ops.NewChosenToken()) {
    ops.ChooseLikeliest(workspace.Logits(1), *chosen, stream);
    chunk.chosen = chosen.get();
    CHECK(Forward(chunk, workspace, ops, stream).ok());
    (void)chosen->Wait();
  }
  if (tables.key_bias.view.data() == nullptr && !spec_.is_latent()) WarmUpAttention(workspace, ops, stream);
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
                                     .causal = CausalWork::kSkip,
                                     .sinks = weights_.layers.front().sinks.view};
      ops.Attention(queries, reach - queries.rows(), cache.Span(0, 0, reach), options, attended, stream);
    }
  }
}

void Decoder::CheckChunk(const Chunk& chunk) const {
  CHECK(0 <= chunk.begin && 0 < chunk.rows());
  CHECK_LE(chunk.end(), chunk.cache.capacity());
  CHECK(chunk.tables != nullptr);
  CHECK_LE(chunk.end(), chunk.tables->positions);
}

void Decoder::Embed(std::span<const Chunk> batch, Workspace& workspace, Ops& ops, Stream& stream) const {
  const float scale =
      spec_.rounded_embedding_scale ? RoundTo(compute_, spec_.embedding_scale) : spec_.embedding_scale;
  std::vector<int32_t> ids;  // of the chunks since the last one that is chosen by the device
  int64_t row = 0;
  const auto embed = [&](std::span<const int32_t> tokens) {
    const auto n = std::ssize(tokens);
    if (n > 0)
      ops.Embed(tokens, weights_.embedding.view, scale, workspace.Hidden(row + n).Rows(row, row + n), stream);
    row += n;
  };
  if (batch.size() == 1 && batch.front().chosen == nullptr) return embed(batch.front().tokens);
  for (const Chunk& chunk : batch) {
    if (chunk.chosen == nullptr) {
      ids.insert(ids.end(), chunk.tokens.begin(), chunk.tokens.end());
      continue;
    }
    embed(ids);
    ids.clear();
    const TensorView hidden = workspace.Hidden(row + 1).Rows(row, row + 1);
    ops.EmbedChosen(*chunk.chosen, weights_.embedding.view, scale, hidden, stream);
    ++row;
  }
  embed(ids);
}

void Decoder::AddPositions(std::span<const Chunk> batch, TensorView hidden, Ops& ops, Stream& stream) const {
  if (spec_.learned_positions == 0) return;
  int64_t row = 0;
  for (const Chunk& chunk : batch) {
    ops.Add(hidden.Rows(row, row + chunk.rows()), weights_.positions.view.Rows(chunk.begin, chunk.end()), stream);
    row += chunk.rows();
  }
}

Status Decoder::Forward(std::span<const Chunk> batch, Workspace& workspace, Ops& ops, Stream& stream) const {
  for (const Chunk& chunk : batch) CheckChunk(chunk);
  const Pass pass(spec_, batch, workspace, ops, stream);
  CHECK_LE(pass.rows, workspace.rows());
  CHECK_LE(std::ssize(pass.kept), workspace.logit_rows());
  Embed(batch, workspace, ops, stream);
  TensorView hidden = workspace.Hidden(pass.rows);
  AddPositions(batch, hidden, ops, stream);
  if (weights_.embedding_norm) ops.Normalize(hidden, *weights_.embedding_norm, hidden, stream);
  TensorView normalized = workspace.Normalized(pass.rows);
  for (int layer = 0; layer < spec_.layers; ++layer) {
    const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
    const TensorView queries = layer == spec_.layers - 1 ? ProjectLastLayer(pass, weights, hidden, normalized)
                                                         : Project(pass, weights, layer, hidden, normalized);
    for (const Chunk& chunk : batch) {
      if (chunk.exchange == nullptr) continue;
      if (Status status = chunk.exchange->LayerReady(layer, stream); !status.ok()) return status;
    }
    if (queries.rows() == 0) return Status::Ok();  // the last layer, and nobody wants logits
    FinishLayer(pass, weights, layer, queries, hidden, normalized);
  }
  const TensorView logits = workspace.Logits(std::ssize(pass.kept));
  ops.Normalize(hidden, weights_.final_norm, normalized, stream);
  ops.Matmul(normalized, *weights_.head, logits, stream);
  if (spec_.logit_softcap > 0) ops.Softcap(logits, spec_.logit_softcap, stream);
  return Status::Ok();
}

}  // namespace runahead
