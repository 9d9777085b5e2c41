#include "model/attention_steps.h"

#include <algorithm>
#include <vector>

#include "model/flops.h"

namespace runahead {
namespace {

/// Queries as attention reads them, and where it writes to; rows [begin, begin + n) of a pass's queries.
struct Heads {
  int64_t begin = 0;
  TensorView queries;  // [n, q_heads, features]
  TensorView rotated;  // AttentionOptions::rotated, or empty
  TensorView out;      // [n, q_heads, features of values]
  TensorView sinks;    // AttentionOptions::sinks, or empty
};

/// The attentions of those chunks whose rows `heads` holds.
std::vector<AttentionTask> TasksOf(const Pass& pass, int layer, const Heads& heads) {
  const bool kept_only = layer == pass.spec.layers - 1;
  std::vector<AttentionTask> tasks;
  int64_t row = 0;  // of the pass's queries
  for (const Chunk& chunk : pass.batch) {
    if (kept_only && !chunk.logits()) continue;
    const int64_t end = row + (kept_only ? 1 : chunk.rows());
    const int64_t first = std::max(row, heads.begin);
    const int64_t last = std::min(end, heads.begin + heads.queries.rows());
    if (first < last) {
      const auto own = [&](const TensorView& view) { return view.Rows(first - heads.begin, last - heads.begin); };
      const AttentionExtent extent = chunk.exchange == nullptr ? AttentionExtent{chunk.end(), CausalWork::kSkip}
                                                               : chunk.exchange->Extent(chunk.end());
      const AttentionOptions options{
          .scale = pass.spec.attention_scale,
          .window = pass.spec.window(layer),
          .softcap = pass.spec.attention_softcap,
          .key_bias = chunk.tables->key_bias.view,
          .causal = extent.causal,
          .rotated = heads.rotated.data() != nullptr ? own(heads.rotated) : TensorView(),
          .sinks = heads.sinks,
      };
      tasks.push_back({own(heads.queries), chunk.end() - (end - first), chunk.cache.Rows(layer, extent.rows), options,
                       own(heads.out)});
    }
    row = end;
  }
  return tasks;
}

/// Queries of latent attention, and what they attend to.
struct LatentQueries {
  TensorView plain;     // [n, q_heads * plain_dim]
  TensorView turning;   // [n, q_heads, head_dim]
  TensorView attended;  // [n, q_heads * value_dim]
};

/// Attention of rows [begin, end) to latent vectors, some at a time: a query becomes as wide as they are, and what it
/// attended to becomes a value.
void AttendToVectors(const Pass& pass, const LatentWeights& weights, int layer, const LatentQueries& all,
                     int64_t begin, int64_t end) {
  const DecoderSpec& spec = pass.spec;
  const int64_t most = pass.workspace.latent_rows();
  for (int64_t first = begin; first < end; first += most) {
    const int64_t last = std::min(first + most, end);
    const TensorView wide = pass.workspace.LatentQueries(last - first);
    const TensorView seen = pass.workspace.LatentAttended(last - first);
    pass.ops.MatmulByHead(all.plain.Rows(first, last), *weights.keys, wide, pass.stream);
    const Heads heads{first,
                      wide.SplitRows(spec.q_heads, spec.latent.rank),
                      all.turning.Rows(first, last),
                      seen.SplitRows(spec.q_heads, spec.latent.rank),
                      {}};
    pass.ops.AttentionOfMany(TasksOf(pass, layer, heads), pass.stream);
    pass.ops.MatmulByHead(seen, *weights.values, all.attended.Rows(first, last), pass.stream);
  }
}

/// Chunks of many rows attend to keys and values of their own where the backend has that; all else, and all rows of
/// backends without, to the vectors. So there prompts and single tokens are one computation, and leave the same bits.
void AttendToLatents(const Pass& pass, const LatentWeights& weights, int layer, TensorView queries,
                     TensorView attended) {
  const DecoderSpec& spec = pass.spec;
  const LatentQueries all{queries.Columns(spec.q_heads * spec.head_dim, queries.row_elements()),
                          TurningOf(spec, queries), attended};
  const Heads heads{0,
                    all.plain.SplitRows(spec.q_heads, spec.latent.plain_dim),
                    all.turning,
                    attended.SplitRows(spec.q_heads, spec.latent.value_dim),
                    {}};
  int64_t open = 0;  // rows before it have attended
  int64_t row = 0;
  for (const AttentionTask& task : TasksOf(pass, layer, heads)) {
    const int64_t end = row + task.q.rows();
    if (ExpandingIsLess(spec, task.position, task.position + task.q.rows()) &&
        pass.ops.AttendToExpanded(task, *weights.keys, *weights.values, pass.stream)) {
      AttendToVectors(pass, weights, layer, all, open, row);
      open = end;
    }
    row = end;
  }
  AttendToVectors(pass, weights, layer, all, open, row);
}

}  // namespace

TensorView QueriesOf(const Pass& pass, TensorView qkv) {
  if (pass.spec.latent.query_rank > 0) return pass.workspace.Queries(qkv.rows());
  return qkv.Columns(0, pass.spec.query_columns());
}

TensorView MakeQueries(const Pass& pass, const LayerWeights& weights, TensorView qkv) {
  const TensorView columns = qkv.Columns(0, pass.spec.query_columns());
  NormalizeRows(pass, weights.q_norm, columns);
  const TensorView queries = QueriesOf(pass, qkv);
  if (weights.latent && weights.latent->queries) {
    pass.ops.Matmul(columns, *weights.latent->queries, queries, pass.stream);
  }
  return queries;
}

TensorView TurningOf(const DecoderSpec& spec, TensorView queries) {
  return queries.Columns(0, spec.q_heads * spec.head_dim).SplitRows(spec.q_heads, spec.head_dim);
}

TensorView KeysOf(const DecoderSpec& spec, TensorView qkv) {
  const int64_t begin = spec.query_columns() + spec.latent.rank;
  return qkv.Columns(begin, begin + spec.kv_features()).SplitRows(spec.kv_heads, spec.head_dim);
}

TensorView ValuesOf(const DecoderSpec& spec, TensorView qkv) {
  const int64_t begin = spec.query_columns();
  if (spec.is_latent()) return qkv.Columns(begin, begin + spec.latent.rank).SplitRows(1, spec.latent.rank);
  return qkv.Columns(begin + spec.kv_features(), qkv.row_elements()).SplitRows(spec.kv_heads, spec.head_dim);
}

void NormalizeKeys(const Pass& pass, const LayerWeights& weights, TensorView qkv) {
  const TensorView normed = pass.spec.is_latent() ? ValuesOf(pass.spec, qkv) : KeysOf(pass.spec, qkv);
  NormalizeRows(pass, weights.k_norm, normed.AsMatrix());
}

TensorView Attend(const Pass& pass, const LayerWeights& weights, int layer, TensorView queries) {
  const TensorView attended = pass.workspace.Attended(queries.rows());
  if (weights.latent) {
    AttendToLatents(pass, *weights.latent, layer, queries, attended);
    return attended;
  }
  const auto heads = [&](TensorView rows) { return rows.SplitRows(pass.spec.q_heads, pass.spec.head_dim); };
  pass.ops.AttentionOfMany(TasksOf(pass, layer, {0, heads(queries), {}, heads(attended), weights.sinks.view}),
                           pass.stream);
  return attended;
}

}  // namespace runahead
