#include "ops/cuda/expanded_attention.h"

#include <algorithm>

namespace runahead::cuda {
namespace {

/// Of the heads that are made at a time, unless one needs more. What ranks leave free for libraries has room for it.
constexpr size_t kMostBytes = size_t{512} << 20;

/// Heads [first, first + count) of `view`.
TensorView HeadsOf(const TensorView& view, int64_t first, int64_t count) {
  auto* const data = static_cast<std::byte*>(view.data());
  const auto skipped = static_cast<size_t>(first * view.shape()[2]) * SizeOf(view.dtype());
  return {data + skipped, view.dtype(), {view.rows(), count, view.shape()[2]}, view.row_stride()};
}

}  // namespace

bool ExpandedAttention::MakeRoom(size_t bytes) {
  constexpr size_t kLeft = size_t{128} << 20;  // for what libraries still allocate
  if (room_.bytes() >= bytes) return true;
  const size_t wanted = std::min(bytes + bytes / 4, std::max(bytes, kMostBytes));
  if (device_.FreeBytes() + room_.bytes() < wanted + kLeft) return false;
  room_ = Buffer();
  room_ = device_.Allocate(wanted);
  return true;
}

bool ExpandedAttention::Attend(const AttentionTask& task, const CudaLinear& keys, const CudaLinear& values,
                               const LaunchOn& on) {
  constexpr int64_t kMultiple = 8;  // 16-bit elements of a vector
  CHECK_EQ(task.options.window, 0);
  CHECK_EQ(task.options.softcap, 0.0f);
  CHECK(task.options.key_bias.data() == nullptr && task.options.sinks.data() == nullptr);
  const DType dtype = task.q.dtype();
  const int64_t n = task.q.rows();
  const int64_t heads = task.q.shape()[1];
  const int64_t plain = task.q.shape()[2];
  const int64_t turning = task.options.rotated.shape()[2];
  const int64_t value = task.out.shape()[2];
  if (SizeOf(dtype) != sizeof(uint16_t) || plain % kMultiple != 0 || turning % kMultiple != 0 ||
      value % kMultiple != 0 || !JoinsHeads(task.q) || !JoinsHeads(task.options.rotated) ||
      !JoinsHeads(task.keys.k)) {
    return false;
  }
  const int64_t seen = task.options.causal == CausalWork::kDense ? task.keys.rows : task.position + n;
  const int64_t wide = plain + turning;
  const auto bytes_of = [&](int64_t count) {
    return static_cast<size_t>(count * (n * wide + seen * (wide + value))) * SizeOf(dtype);
  };
  int64_t count = heads;
  while (bytes_of(count) > kMostBytes && count % 2 == 0) count /= 2;
  if (!MakeRoom(bytes_of(count))) return false;

  std::byte* end = room_.data();
  const auto take = [&](int64_t rows, int64_t features) {
    const TensorView view(end, dtype, {rows, count, features});
    end += view.bytes();
    return view;
  };
  const TensorView q = take(n, wide);
  const TensorView k = take(seen, wide);
  const TensorView v = take(seen, value);
  const TensorView turned = task.keys.k.Rows(0, seen);
  const TensorView vectors(task.keys.v.data(), dtype, {seen, task.keys.v.shape()[2]}, task.keys.v.row_stride());
  for (int64_t first = 0; first < heads; first += count) {
    const int part = static_cast<int>(first);
    JoinHeads(on, HeadsOf(task.q, first, count), q, 0);
    JoinHeads(on, HeadsOf(task.options.rotated, first, count), q, plain);
    multiplier_.MultiplyIntoHeads(vectors, keys, part, /*turned=*/true, k, on);
    JoinHeads(on, turned, k, plain);
    multiplier_.MultiplyIntoHeads(vectors, values, part, /*turned=*/false, v, on);
    if (!AttendHeads(task, q, k, v, HeadsOf(task.out, first, count), on)) return false;
  }
  return true;
}

/// Of CausalWork::kDense the masked pairs too, before what counts.
bool ExpandedAttention::AttendHeads(const AttentionTask& task, TensorView q, TensorView k, TensorView v,
                                    TensorView out, const LaunchOn& on) {
  AttentionOptions options;
  options.scale = task.options.scale;
  const int64_t rows = k.rows();
  const auto attend = [&](int64_t position, int64_t from) {
    const int64_t count = rows - from;
    return cudnn_.Attend(q, position, KvRows(k.Rows(from, rows), v.Rows(from, rows), count, PageTable(count)),
                         options, out, on);
  };
  const int64_t masked = rows - task.position - q.rows();
  if (task.options.causal == CausalWork::kDense && !attend(masked, task.position)) return false;
  return attend(task.position, 0);
}

}  // namespace runahead::cuda
