#include "model/workspace.h"

#include <algorithm>

namespace runahead {
namespace {

constexpr size_t kAlignment = 64;

/// Where each tensor of a workspace starts, in bytes.
struct Layout {
  size_t logits = 0;
  size_t hidden = 0;
  size_t normalized = 0;
  size_t delta = 0;
  size_t qkv = 0;  // shared from here on
  size_t attended = 0;
  size_t queries = 0;
  size_t latent_queries = 0;
  size_t latent_attended = 0;
  size_t gate_up = 0;
  size_t activated = 0;
  size_t scores = 0;
  size_t gathered = 0;
  size_t experts_out = 0;
  size_t end = 0;
};

int64_t QueryFeatures(const DecoderSpec& spec) { return spec.q_heads * spec.query_dim(); }

/// Rows of a step of latent attention: enough to fill a GPU, whose blocks take 64 heads of queries each.
int64_t LatentRows(const DecoderSpec& spec, int64_t rows) {
  constexpr int64_t kHeads = 32768;  // of queries
  return std::min(rows, std::max<int64_t>(kHeads / spec.q_heads, 1));
}

Layout Arrange(const DecoderSpec& spec, DType compute, int64_t rows, int64_t block_rows, int64_t logit_rows) {
  const auto place = [](size_t& end, int64_t elements, DType dtype) {
    const size_t begin = end;
    const size_t bytes = static_cast<size_t>(elements) * SizeOf(dtype);
    end = (begin + bytes + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  };
  const int64_t block = std::min(rows, block_rows);
  Layout layout;
  size_t end = 0;
  layout.logits = place(end, logit_rows * spec.vocab, DType::kF32);
  layout.hidden = place(end, rows * spec.hidden, compute);
  layout.normalized = place(end, rows * spec.hidden, compute);
  layout.delta = place(end, rows * spec.hidden, compute);
  size_t attention_end = end;
  layout.qkv = place(attention_end, rows * (spec.query_columns() + spec.kv_columns()), compute);
  layout.attended = place(attention_end, rows * spec.attended_columns(), compute);
  if (spec.is_latent()) {
    const int64_t latent = LatentRows(spec, rows) * spec.q_heads * spec.latent.rank;
    if (spec.latent.query_rank > 0) layout.queries = place(attention_end, rows * QueryFeatures(spec), compute);
    layout.latent_queries = place(attention_end, latent, compute);
    layout.latent_attended = place(attention_end, latent, compute);
  }
  size_t mlp_end = end;
  layout.gate_up = place(mlp_end, block * spec.mlp_in_features(), compute);
  const int64_t inner = spec.mixture.chosen * spec.mixture.ffn;
  layout.activated = place(mlp_end, block * std::max(spec.widest_ffn(), inner), compute);
  if (const MixtureSpec& mixture = spec.mixture; mixture.experts > 0) {
    layout.scores = place(mlp_end, block * mixture.scores(), DType::kF32);
    layout.gathered = place(mlp_end, block * spec.hidden, compute);
    layout.experts_out = place(mlp_end, block * mixture.active() * spec.hidden, compute);
  }
  layout.end = std::max(attention_end, mlp_end);
  return layout;
}

}  // namespace

int64_t MlpBlockRows(int64_t n, int64_t most) {
  constexpr int64_t kRowMultiple = 16;  // rows of a matmul's tile
  CHECK_EQ(most % kRowMultiple, 0);
  const int64_t blocks = (n + most - 1) / most;
  if (blocks <= 1) return n;
  const int64_t rows = (n + blocks - 1) / blocks;
  return (rows + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
}

size_t Workspace::Bytes(const DecoderSpec& spec, DType compute, int64_t rows, int64_t block_rows,
                        int64_t logit_rows) {
  return Arrange(spec, compute, rows, block_rows, logit_rows).end;
}

Workspace::Workspace(Device& device, const DecoderSpec& spec, DType compute, int64_t rows, int64_t block_rows,
                     int64_t logit_rows)
    : rows_(rows),
      block_rows_(block_rows),
      memory_(device.Allocate(Bytes(spec, compute, rows, block_rows, logit_rows))) {
  CHECK_GT(rows, 0);
  const Layout layout = Arrange(spec, compute, rows, block_rows, logit_rows);
  const int64_t block = std::min(rows, block_rows);
  const auto view = [&](size_t begin, DType dtype, const Shape& shape) {
    return TensorView(memory_.data() + begin, dtype, shape);
  };
  logits_ = view(layout.logits, DType::kF32, {logit_rows, spec.vocab});
  hidden_ = view(layout.hidden, compute, {rows, spec.hidden});
  normalized_ = view(layout.normalized, compute, {rows, spec.hidden});
  delta_ = view(layout.delta, compute, {rows, spec.hidden});
  qkv_ = view(layout.qkv, compute, {rows, spec.query_columns() + spec.kv_columns()});
  attended_ = view(layout.attended, compute, {rows, spec.attended_columns()});
  if (spec.is_latent()) {
    const Shape latent{LatentRows(spec, rows), spec.q_heads * spec.latent.rank};
    if (spec.latent.query_rank > 0) queries_ = view(layout.queries, compute, {rows, QueryFeatures(spec)});
    latent_queries_ = view(layout.latent_queries, compute, latent);
    latent_attended_ = view(layout.latent_attended, compute, latent);
  }
  gate_up_ = view(layout.gate_up, compute, {block, spec.mlp_in_features()});
  activated_ = view(layout.activated, compute, {block, spec.widest_ffn()});
  if (const MixtureSpec& mixture = spec.mixture; mixture.experts > 0) {
    scores_ = view(layout.scores, DType::kF32, {block, mixture.scores()});
    gathered_ = view(layout.gathered, compute, {block, spec.hidden});
    inner_ = view(layout.activated, compute, {block * mixture.chosen, mixture.ffn});
    experts_out_ = view(layout.experts_out, compute, {block * mixture.active(), spec.hidden});
  }
}

}  // namespace runahead
