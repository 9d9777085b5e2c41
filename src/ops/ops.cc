#include "ops/ops.h"

#include <cmath>

namespace runahead {

void Ops::MatmulByHead(TensorView x, const Linear& linear, TensorView y, Stream& stream) {
  const int64_t in = linear.in_features();
  const int64_t out = linear.out_features(0, 1);
  for (int head = 0; head < linear.parts(); ++head) {
    Matmul(x.Columns(head * in, (head + 1) * in), linear, head, 1, y.Columns(head * out, (head + 1) * out), stream);
  }
}

void Ops::AttentionOfMany(std::span<const AttentionTask> tasks, Stream& stream) {
  for (const AttentionTask& task : tasks) {
    Attention(task.q, task.position, task.keys, task.options, task.out, stream);
  }
}

TensorView Ops::KeepRows(TensorView x, std::span<const int64_t> rows, Stream& stream) {
  const auto count = std::ssize(rows);
  if (rows.empty() || rows.back() - rows.front() + 1 == count) {
    return rows.empty() ? x.Rows(0, 0) : x.Rows(rows.front(), rows.back() + 1);
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = rows[static_cast<size_t>(i)];
    if (row == i) continue;
    const TensorView from = x.Rows(row, row + 1);
    device().Copy(x.Rows(i, i + 1).data(), from.data(), from.bytes(), stream);
  }
  return x.Rows(0, count);
}

double ExpertsMet(int64_t choices, int64_t chosen, int64_t rows) {
  const double passed_by = 1 - static_cast<double>(chosen) / static_cast<double>(choices);
  return static_cast<double>(choices) * (1 - std::pow(passed_by, static_cast<double>(rows)));
}

void Ops::PrepareHeads(const HeadRows& heads, Stream& stream) {
  AppendKv(heads.k, heads.v, heads.key_steps, heads.rows, stream);
  if (heads.q.data() == nullptr) return;
  PrepareQueries(heads.q, heads.query_steps, heads.rows.begin, stream);
}

void Ops::PrepareHeadsOfMany(std::span<const HeadRows> pieces, Stream& stream) {
  for (const HeadRows& piece : pieces) PrepareHeads(piece, stream);
}

void Ops::PrepareQueriesOfMany(TensorView q, std::span<const QueryRow> rows, Stream& stream) {
  for (int64_t i = 0; i < std::ssize(rows); ++i) {
    const QueryRow& row = rows[static_cast<size_t>(i)];
    PrepareQueries(q.Rows(i, i + 1), row.steps, row.position, stream);
  }
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
