// Rotary position embedding (Su et al. 2021) of queries in place and of keys on their way into the cache, after an
// optional norm of each head.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = 4;          // warps of a block of NormalizeAndRotate
constexpr int kMaxHeadDim = 1024;  // elements that a warp of it holds

/// Heads of one tensor, and where they go.
template <typename T>
struct Heads {
  const T* from;
  int64_t from_stride;
  T* to;
  int64_t to_stride;
  int heads;
  int head_dim;
};

struct Angles {
  const float* cosine;  // [positions, half], from the first row's position on; null: no rotation
  const float* sine;
  int half;
};

/// Where a row's angles are, and where its keys and values go.
__device__ RowPlace PlaceOf(const RowPlace* places, int64_t row) {
  return places == nullptr ? RowPlace{static_cast<int32_t>(row), static_cast<int32_t>(row)} : places[row];
}

template <typename T>
__device__ void CopyVector(const Heads<T>& heads, int64_t row, int64_t to_row, int element) {
  constexpr int kPer = kPerVector<T>;
  Store(heads.to + to_row * heads.to_stride + element, Load<kPer>(heads.from + row * heads.from_stride + element));
}

/// Turns kPerVector pairs of a head.
template <typename T>
__device__ void RotateVector(const Heads<T>& heads, const Angles& angles, int64_t row, int64_t position,
                             int64_t to_row, int item) {
  constexpr int kPer = kPerVector<T>;
  const int per_head = angles.half / kPer;
  const int pair = item % per_head * kPer;
  const int element = item / per_head * heads.head_dim + pair;
  const T* const from = heads.from + row * heads.from_stride + element;
  const auto low = Load<kPer>(from);
  const auto high = Load<kPer>(from + angles.half);
  const float* const cosine = angles.cosine + position * angles.half + pair;
  const float* const sine = angles.sine + position * angles.half + pair;
  Vector<T, kPer> low_out;
  Vector<T, kPer> high_out;
#pragma unroll
  for (int j = 0; j < kPer; j += 4) {
    const auto c = Load<4>(cosine + j);
    const auto s = Load<4>(sine + j);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float a = ToFloat(low.values[j + i]);
      const float b = ToFloat(high.values[j + i]);
      low_out.values[j + i] = FromFloat<T>(a * c.values[i] - b * s.values[i]);
      high_out.values[j + i] = FromFloat<T>(b * c.values[i] + a * s.values[i]);
    }
  }
  T* const to = heads.to + to_row * heads.to_stride + element;
  Store(to, low_out);
  Store(to + angles.half, high_out);
}

/// Rows x blocks that share a row. First the rotated part of every head, then what a head passes through (when it
/// moves at all), then the rows of `plain` (values), then the rotated part of `in_place` (queries). Reads and writes
/// each element once, and the angles. kPerVector divides head_dim and half, and rows are aligned.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RotateRows(const Heads<T> heads, const Angles angles, const Heads<T> plain, const Heads<T> in_place,
               const RowPlace* places) {
  constexpr int kPer = kPerVector<T>;
  ReleaseSuccessors();
  WaitForPredecessors();
  const int64_t row = blockIdx.x;
  const auto [position, moved_row] = PlaceOf(places, row);
  const int64_t to_row = heads.to == heads.from ? row : moved_row;  // queries alone stay where they are
  const int rotated = heads.heads * (angles.half / kPer);
  // Vectors of a head that are only copied.
  const int rest = heads.to == heads.from ? 0 : (heads.head_dim - 2 * angles.half) / kPer;
  const int passed = heads.heads * rest;
  const int values = plain.heads * plain.head_dim / kPer;
  const int turned = in_place.heads * (angles.half / kPer);
  const int step = static_cast<int>(gridDim.y) * kThreads;
  for (int item = static_cast<int>(blockIdx.y * kThreads + threadIdx.x); item < rotated + passed + values + turned;
       item += step) {
    if (item < rotated) {
      RotateVector(heads, angles, row, position, to_row, item);
    } else if (item < rotated + passed) {
      const int i = item - rotated;
      CopyVector(heads, row, to_row, i / rest * heads.head_dim + 2 * angles.half + i % rest * kPer);
    } else if (item < rotated + passed + values) {
      CopyVector(plain, row, to_row, (item - rotated - passed) * kPer);
    } else {
      RotateVector(in_place, angles, row, position, row, item - rotated - passed - values);
    }
  }
}

/// What NormalizeAndRotate does to a head before the rotation; `weight` null: nothing.
struct HeadNorm {
  const float* weight;  // [head_dim], or [heads, head_dim]
  const float* bias;    // as large, or null
  int stride;           // weights from one head's to the next one's
  float epsilon;
  bool centred;
};

/// A warp per head, kWarps warps a block; head_dim floats of shared memory for each. Any size and alignment.
template <typename T>
__global__ void __launch_bounds__(32 * kWarps)
    NormalizeAndRotate(const Heads<T> heads, const HeadNorm norm, const Angles angles, const RowPlace* places,
                       int64_t items) {
  extern __shared__ float memory[];
  ReleaseSuccessors();
  WaitForPredecessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (item >= items) return;
  float* const head = memory + warp * heads.head_dim;
  const int64_t row = item / heads.heads;
  const int64_t first = item % heads.heads * heads.head_dim;
  const T* const from = heads.from + row * heads.from_stride + first;
  const auto [position, moved_row] = PlaceOf(places, row);
  T* const to = heads.to + (heads.to == heads.from ? row : moved_row) * heads.to_stride + first;

  float sum = 0;
  for (int i = lane; i < heads.head_dim; i += 32) {
    head[i] = ToFloat(from[i]);
    sum += norm.centred ? head[i] : head[i] * head[i];
  }
  if (norm.weight != nullptr) {
    const auto count = static_cast<float>(heads.head_dim);
    float mean = 0;
    sum = WarpSum(sum);
    if (norm.centred) {
      mean = sum / count;
      float squares = 0;
      for (int i = lane; i < heads.head_dim; i += 32) squares += (head[i] - mean) * (head[i] - mean);
      sum = WarpSum(squares);
    }
    const float scale = 1.0f / sqrtf(sum / count + norm.epsilon);
    const int64_t first_weight = item % heads.heads * norm.stride;
    for (int i = lane; i < heads.head_dim; i += 32) {
      const float shift = norm.bias == nullptr ? 0.0f : norm.bias[first_weight + i];
      head[i] = ToFloat(FromFloat<T>((head[i] - mean) * scale * norm.weight[first_weight + i] + shift));
    }
  }
  __syncwarp();
  const int half = angles.cosine == nullptr ? 0 : angles.half;
  for (int i = lane; i < heads.head_dim; i += 32) {
    float value = head[i];
    if (i < 2 * half) {
      const int pair = i < half ? i : i - half;
      const float c = angles.cosine[int64_t{position} * half + pair];
      const float s = angles.sine[int64_t{position} * half + pair];
      value = i < half ? head[i] * c - head[i + half] * s : head[i] * c + head[i - half] * s;
    }
    to[i] = FromFloat<T>(value);
  }
}

template <typename T>
Heads<T> HeadsOf(TensorView from, TensorView to) {
  return {Pointer<T>(from),
          from.row_stride(),
          Pointer<T>(to),
          to.row_stride(),
          static_cast<int>(from.shape()[1]),
          static_cast<int>(from.shape()[2])};
}

Angles AnglesOf(const RopeTable* rope, int64_t position) {
  if (rope == nullptr) return {nullptr, nullptr, 0};
  const int64_t half = rope->rotary_dim() / 2;
  return {Pointer<float>(rope->cos.view) + position * half, Pointer<float>(rope->sin.view) + position * half,
          static_cast<int>(half)};
}

HeadNorm NormOf(const Norm* norm, int head_dim) {
  if (norm == nullptr) return {nullptr, nullptr, 0, 0, false};
  const bool own_weights = norm->weight.view.shape().elements() != head_dim;
  return {Pointer<float>(norm->weight.view), Pointer<float>(norm->bias.view), own_weights ? head_dim : 0,
          norm->epsilon, norm->kind == NormKind::kLayer};
}

bool CanVectorize(const HeadSteps& steps, TensorView from, TensorView to) {
  const auto per_vector = static_cast<int64_t>(16 / SizeOf(from.dtype()));
  const int64_t head_dim = from.shape()[2];
  return steps.norm == nullptr && head_dim % per_vector == 0 &&
         (steps.rope == nullptr || steps.rope->rotary_dim() / 2 % per_vector == 0) &&
         Vectorizable(from, from.row_elements()) && Vectorizable(to, to.row_elements());
}

/// One launch of RotateRows. Few rows are shared by several blocks each.
template <typename T>
void LaunchRotate(const LaunchOn& on, int64_t rows, const Heads<T>& heads, const Angles& angles,
                  const Heads<T>& plain, const Heads<T>& in_place, const RowPlace* places) {
  constexpr int64_t kFewRows = 64;
  const int64_t elements = static_cast<int64_t>(heads.heads) * heads.head_dim +
                           static_cast<int64_t>(plain.heads) * plain.head_dim +
                           static_cast<int64_t>(in_place.heads) * in_place.head_dim;
  const int64_t per_block = int64_t{kThreads} * kPerVector<T>;
  const int64_t blocks = rows > kFewRows ? 1 : (elements + per_block - 1) / per_block;
  Launch(on, &RotateRows<T>, dim3(static_cast<unsigned>(rows), static_cast<unsigned>(blocks)), dim3(kThreads), 0,
         heads, angles, plain, in_place, places);
}

template <typename T>
void StepByHead(const LaunchOn& on, const Heads<T>& heads, const HeadSteps& steps, int64_t position, int64_t rows,
                const RowPlace* places) {
  CHECK_LE(heads.head_dim, kMaxHeadDim);
  const int64_t items = rows * heads.heads;
  Launch(on, &NormalizeAndRotate<T>, dim3(static_cast<unsigned>((items + kWarps - 1) / kWarps)), dim3(32 * kWarps),
         static_cast<size_t>(kWarps) * heads.head_dim * sizeof(float), heads, NormOf(steps.norm, heads.head_dim),
         AnglesOf(steps.rope, position), places, items);
}

}  // namespace

void PrepareQueries(const LaunchOn& on, TensorView q, const HeadSteps& steps, int64_t position,
                    const RowPlace* places) {
  if (steps.norm == nullptr && steps.rope == nullptr) return;
  const int64_t first = places == nullptr ? position : 0;
  DispatchDevice(q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Heads<T> heads = HeadsOf<T>(q, q);
    if (!CanVectorize(steps, q, q)) return StepByHead(on, heads, steps, first, q.rows(), places);
    LaunchRotate<T>(on, q.rows(), heads, AnglesOf(steps.rope, first), {}, {}, places);
  });
}

void AppendKv(const LaunchOn& on, TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows,
              const RowPlace* places) {
  const int64_t first = places == nullptr ? rows.begin : 0;
  DispatchDevice(k.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Heads<T> keys = HeadsOf<T>(k, rows.k);
    const Heads<T> values = HeadsOf<T>(v, rows.v);
    if (CanVectorize(steps, k, rows.k) && CanVectorize({}, v, rows.v)) {
      return LaunchRotate<T>(on, k.rows(), keys, AnglesOf(steps.rope, first), values, {}, places);
    }
    StepByHead(on, keys, steps, first, k.rows(), places);
    StepByHead(on, values, {}, first, v.rows(), places);
  });
}

void PrepareHeads(const LaunchOn& on, const HeadRows& heads, const RowPlace* places) {
  const auto& [q, k, v, query_steps, key_steps, rows] = heads;
  if (q.data() == nullptr) return AppendKv(on, k, v, key_steps, rows, places);
  if (query_steps.rope != key_steps.rope || !CanVectorize(query_steps, q, q) || !CanVectorize(key_steps, k, rows.k) ||
      !CanVectorize({}, v, rows.v)) {
    AppendKv(on, k, v, key_steps, rows, places);
    return PrepareQueries(on, q, query_steps, rows.begin, places);
  }
  const int64_t first = places == nullptr ? rows.begin : 0;
  DispatchDevice(k.dtype(), [&](auto zero) {
    using T = decltype(zero);
    LaunchRotate<T>(on, heads.k.rows(), HeadsOf<T>(heads.k, heads.rows.k), AnglesOf(heads.key_steps.rope, first),
                    HeadsOf<T>(heads.v, heads.rows.v), HeadsOf<T>(heads.q, heads.q), places);
  });
}

}  // namespace runahead::cuda
