#include "ops/timed_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace runahead {
namespace {

/// Bytes of several tensors.
template <typename... Views>
double BytesOf(const Views&... views) {
  return (static_cast<double>(views.bytes()) + ...);
}

/// Pairs of a query and a position that it sees.
double VisiblePairsOf(int64_t position, int64_t queries, int64_t window) {
  double pairs = 0;
  for (int64_t own = position; own < position + queries; ++own) {
    pairs += static_cast<double>(window > 0 ? std::min(own + 1, window) : own + 1);
  }
  return pairs;
}

/// The product of x and a matrix into y.
OpTime ProductOf(const char* name, TensorView x, TensorView y) {
  const auto weights = static_cast<double>(x.row_elements()) * static_cast<double>(y.row_elements());
  return {fmt::format("{} {} -> {}", name, x.row_elements(), y.row_elements()), 0,
          2 * weights * static_cast<double>(x.rows()),
          BytesOf(x, y) + weights * static_cast<double>(SizeOf(x.dtype()))};
}

double AttentionFlops(const AttentionTask& task) {
  const TensorView& rotated = task.options.rotated;
  const int64_t products =
      task.q.row_elements() + task.out.row_elements() + (rotated.data() != nullptr ? rotated.row_elements() : 0);
  return 2 * static_cast<double>(products) * VisiblePairsOf(task.position, task.q.rows(), task.options.window);
}

double AttentionBytes(const AttentionTask& task) {
  const int64_t row = task.keys.k.row_elements() + task.keys.v.row_elements();
  return BytesOf(task.q, task.out) +
         static_cast<double>(task.keys.rows * row) * static_cast<double>(SizeOf(task.keys.k.dtype()));
}

}  // namespace

std::vector<OpTime> TimedOps::Take(Stream& stream) {
  stream.Synchronize();
  std::vector<OpTime> times;
  for (Call& call : calls_) {
    call.time.ms = call.end->MillisecondsSince(*call.begin);
    times.push_back(std::move(call.time));
  }
  calls_.clear();
  return times;
}

void TimedOps::Embed(std::span<const int32_t> tokens, TensorView table, float scale, TensorView out, Stream& stream) {
  Measure({"embed", 0, 0, 2 * BytesOf(out)}, stream, [&] { inner_.Embed(tokens, table, scale, out, stream); });
}

void TimedOps::Normalize(TensorView x, const Norm& norm, TensorView out, Stream& stream) {
  Measure({"norm", 0, 0, BytesOf(x, out)}, stream, [&] { inner_.Normalize(x, norm, out, stream); });
}

void TimedOps::Add(TensorView x, TensorView delta, Stream& stream) {
  Measure({"add", 0, 0, BytesOf(x, x, delta)}, stream, [&] { inner_.Add(x, delta, stream); });
}

void TimedOps::Matmul(TensorView x, const Linear& linear, int first, int count, TensorView y, Stream& stream) {
  Measure(ProductOf("matmul", x, y), stream, [&] { inner_.Matmul(x, linear, first, count, y, stream); });
}

void TimedOps::MatmulAdd(TensorView x, const Linear& linear, TensorView product, TensorView sum, Stream& stream) {
  OpTime time = ProductOf("matmul + add", x, sum);
  time.bytes += BytesOf(sum);  // is read, too
  Measure(std::move(time), stream, [&] { inner_.MatmulAdd(x, linear, product, sum, stream); });
}

void TimedOps::PrepareQueries(TensorView q, const HeadSteps& steps, int64_t position, Stream& stream) {
  Measure({"rope of queries", 0, 0, BytesOf(q, q)}, stream,
          [&] { inner_.PrepareQueries(q, steps, position, stream); });
}

void TimedOps::AppendKv(TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows, Stream& stream) {
  Measure({"rope + append", 0, 0, 2 * BytesOf(k, v)}, stream, [&] { inner_.AppendKv(k, v, steps, rows, stream); });
}

void TimedOps::Attention(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options,
                         TensorView out, Stream& stream) {
  const AttentionTask task{q, position, keys, options, out};
  Measure({"attention", 0, AttentionFlops(task), AttentionBytes(task)}, stream,
          [&] { inner_.Attention(q, position, keys, options, out, stream); });
}

bool TimedOps::AttendToExpanded(const AttentionTask& task, const Linear& keys, const Linear& values, Stream& stream) {
  const int64_t maps = keys.out_features() * keys.in_features() + values.out_features() * values.in_features();
  const double made = 2 * static_cast<double>(task.position + task.q.rows()) * static_cast<double>(maps);
  bool done = false;
  Measure({"attention to expanded latents", 0, AttentionFlops(task) + made, AttentionBytes(task)}, stream,
          [&] { done = inner_.AttendToExpanded(task, keys, values, stream); });
  if (!done) calls_.pop_back();
  return done;
}

void TimedOps::AttentionOfMany(std::span<const AttentionTask> tasks, Stream& stream) {
  if (tasks.size() == 1) return Ops::AttentionOfMany(tasks, stream);
  OpTime time{"attention of many", 0, 0, 0};
  for (const AttentionTask& task : tasks) {
    time.flops += AttentionFlops(task);
    time.bytes += AttentionBytes(task);
  }
  Measure(std::move(time), stream, [&] { inner_.AttentionOfMany(tasks, stream); });
}

void TimedOps::PrepareHeadsOfMany(std::span<const HeadRows> pieces, Stream& stream) {
  if (pieces.size() == 1) return Ops::PrepareHeadsOfMany(pieces, stream);
  OpTime time{"rope + append of many", 0, 0, 0};
  for (const HeadRows& piece : pieces) time.bytes += 2 * BytesOf(piece.q, piece.k, piece.v);
  Measure(std::move(time), stream, [&] { inner_.PrepareHeadsOfMany(pieces, stream); });
}

void TimedOps::GatedActivation(Activation activation, TensorView gate_up, TensorView out, Stream& stream) {
  Measure({"gated activation", 0, 0, BytesOf(gate_up, out)}, stream,
          [&] { inner_.GatedActivation(activation, gate_up, out, stream); });
}

void TimedOps::Activate(Activation activation, TensorView x, TensorView out, Stream& stream) {
  Measure({"activation", 0, 0, BytesOf(x, out)}, stream, [&] { inner_.Activate(activation, x, out, stream); });
}

void TimedOps::AddMixture(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
                          TensorView sum, Stream& stream) {
  const auto weights_of = [](const Expert& expert) {
    return static_cast<double>(3 * expert.down->in_features()) * static_cast<double>(expert.down->out_features());
  };
  double weights = mixture.experts.empty() ? 0 : static_cast<double>(mixture.chosen) * weights_of(mixture.experts[0]);
  if (mixture.shared) weights += weights_of(mixture.experts.back());
  const double met = ExpertsMet(mixture.choices(), mixture.chosen, x.rows());
  double read = mixture.experts.empty() ? 0 : met * weights_of(mixture.experts[0]);
  if (mixture.shared) read += weights_of(mixture.experts.back());
  Measure({fmt::format("{} of {} experts", mixture.chosen, mixture.choices()), 0,
           2 * weights * static_cast<double>(x.rows()),
           BytesOf(x, sum, sum) + read * static_cast<double>(SizeOf(x.dtype()))},
          stream, [&] { inner_.AddMixture(x, scores, mixture, memory, sum, stream); });
}

void TimedOps::Softcap(TensorView x, float cap, Stream& stream) {
  Measure({"softcap", 0, 0, 2 * BytesOf(x)}, stream, [&] { inner_.Softcap(x, cap, stream); });
}

}  // namespace runahead
