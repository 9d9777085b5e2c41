// The launches of the product of one row (gemv.cuh): how its work is cut, and for which steps.
#include <algorithm>

#include "ops/cuda/gemv.cuh"

namespace runahead::cuda {
namespace {

using one_row::Finishing;
using one_row::Job;
using one_row::kBlocksPerMultiprocessor;
using one_row::kMostSharedBytes;
using one_row::kThreads;
using one_row::kWarps;
using one_row::Reader;
using one_row::RowTimesAny;
using one_row::RowTimesMatrix;

/// How a launch of RowTimesMatrix cuts its work.
struct Cut {
  unsigned blocks = 0;
  size_t shared_bytes = 0;
  double fullness = 0;  // share of the reads that the multiprocessors could have under way
};

template <typename T, typename W, int kMatrices, int kShare>
Cut CutFor(int64_t in_features, int64_t outputs, int gain_rows, int multiprocessors) {
  constexpr int64_t kRows = kWarps / kShare;
  constexpr int64_t kChunk = Reader<W, kMatrices, kShare>::kChunk;
  const int64_t sets = (outputs + kRows - 1) / kRows;
  const int64_t most = int64_t{kBlocksPerMultiprocessor} * multiprocessors;
  const int64_t blocks = std::min(sets, most);
  const int64_t rounds = (sets + blocks - 1) / blocks;
  const int64_t padded = (in_features + kChunk - 1) / kChunk * kChunk;
  const auto shared_bytes =
      static_cast<size_t>(padded) * sizeof(T) +
      static_cast<size_t>(gain_rows * in_features + rounds * kMatrices * kWarps) * sizeof(float);
  return {static_cast<unsigned>(blocks), shared_bytes,
          static_cast<double>(outputs * in_features) / static_cast<double>(rounds * most * kRows * padded)};
}

bool Aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

/// Launches RowTimesMatrix, or returns false where sizes or addresses are not for it.
template <int kMatrices, typename T, typename Y, typename W>
bool LaunchRowTimesMatrix(const LaunchOn& on, const Job<T, Y, W>& job) {
  constexpr double kWorthSharing = 1.25;  // fewer reads than could be suffice; a row is best read by one warp
  const int gain_rows = job.norm.weight == nullptr ? 0 : job.norm.bias == nullptr ? 1 : 2;
  const Cut alone = CutFor<T, W, kMatrices, 1>(job.in_features, job.outputs, gain_rows, on.multiprocessors);
  const Cut shared = CutFor<T, W, kMatrices, kWarps>(job.in_features, job.outputs, gain_rows, on.multiprocessors);
  const bool share = shared.shared_bytes <= kMostSharedBytes && shared.fullness > kWorthSharing * alone.fullness;
  const Cut& cut = share ? shared : alone;
  if (job.in_features % kPerVector<W> != 0 || !Aligned(job.x) || !Aligned(job.weights) || !Aligned(job.norm.weight) ||
      !Aligned(job.norm.bias) || !Aligned(job.norm.normalized) || cut.shared_bytes > kMostSharedBytes) {
    return false;
  }
  Launch(on, share ? &RowTimesMatrix<T, Y, W, kMatrices, kWarps> : &RowTimesMatrix<T, Y, W, kMatrices, 1>,
         dim3(cut.blocks), dim3(kThreads), cut.shared_bytes, job);
  return true;
}

template <int kMatrices, typename T, typename Y, typename W>
void MultiplyRowTyped(const LaunchOn& on, const RowProduct& product, Job<T, Y, W> job) {
  if (LaunchRowTimesMatrix<kMatrices>(on, job)) return;
  if (product.norm != nullptr) {
    Normalize(on, product.x, *product.norm, product.normalized);
    job.x = Pointer<T>(product.normalized);
  }
  const auto blocks = static_cast<unsigned>((job.outputs + kWarps - 1) / kWarps);
  Launch(on, &RowTimesAny<T, Y, W, kMatrices>, dim3(blocks), dim3(kThreads), 0, job);
}

template <typename T, typename Y, typename W>
Job<T, Y, W> JobOf(const RowProduct& product, TensorView y, Finishing finishing) {
  Job<T, Y, W> job{};
  job.x = Pointer<T>(product.x);
  job.weights = static_cast<const W*>(product.weights);
  job.scales = product.scales;
  job.bias = product.bias;
  job.y = Pointer<Y>(y);
  job.in_features = static_cast<int>(product.x.row_elements());
  job.outputs = static_cast<int>(y.row_elements());
  job.span = job.outputs;
  job.finishing = finishing;
  if (const Norm* norm = product.norm; norm != nullptr) {
    job.norm = {Pointer<float>(norm->weight.view), Pointer<float>(norm->bias.view), norm->epsilon,
                norm->kind == NormKind::kLayer, Pointer<T>(product.normalized)};
  }
  return job;
}

/// Calls function(zero of the dtype of x, zero of the weights' type).
template <typename Function>
void DispatchProduct(const RowProduct& product, const Function& function) {
  const bool fp8 = product.scales != nullptr;
  CHECK(!fp8 || product.x.dtype() != DType::kF32);
  DispatchDevice(product.x.dtype(), [&](auto zero) {
    if constexpr (!std::is_same_v<decltype(zero), float>) {
      if (fp8) return function(zero, E4M3{});
    }
    function(zero, zero);
  });
}

}  // namespace

void MultiplyRow(const LaunchOn& on, const RowProduct& product, TensorView y) {
  DispatchProduct(product, [&](auto zero, auto weight) {
    using T = decltype(zero);
    using W = decltype(weight);
    if (y.dtype() == product.x.dtype()) {
      return MultiplyRowTyped<1>(on, product, JobOf<T, T, W>(product, y, Finishing::kStore));
    }
    CHECK(y.dtype() == DType::kF32);
    MultiplyRowTyped<1>(on, product, JobOf<T, float, W>(product, y, Finishing::kStore));
  });
}

void MultiplyRowAndAdd(const LaunchOn& on, const RowProduct& product, TensorView sum) {
  CHECK(sum.dtype() == product.x.dtype());
  DispatchProduct(product, [&](auto zero, auto weight) {
    using T = decltype(zero);
    MultiplyRowTyped<1>(on, product, JobOf<T, T, decltype(weight)>(product, sum, Finishing::kAdd));
  });
}

void MultiplyRowAndActivate(const LaunchOn& on, const RowProduct& product, Activation activation, bool gated,
                            TensorView y) {
  CHECK(y.dtype() == product.x.dtype());
  DispatchProduct(product, [&](auto zero, auto weight) {
    using T = decltype(zero);
    auto job = JobOf<T, T, decltype(weight)>(product, y, Finishing::kActivate);
    job.activation = activation;
    if (gated) return MultiplyRowTyped<2>(on, product, job);
    MultiplyRowTyped<1>(on, product, job);
  });
}

bool MultiplyRowIntoHeads(const LaunchOn& on, const RowProduct& product, const HeadRows& heads) {
  const int64_t head_dim = heads.q.shape()[2];
  const RopeTable* const rope = heads.query_steps.rope;
  if (heads.query_steps.norm != nullptr || heads.key_steps.norm != nullptr || rope != heads.key_steps.rope ||
      head_dim % 2 != 0 || (rope != nullptr && rope->rotary_dim() != head_dim)) {
    return false;
  }
  bool done = false;
  DispatchProduct(product, [&](auto zero, auto weight) {
    using T = decltype(zero);
    auto job = JobOf<T, T, decltype(weight)>(product, heads.q, Finishing::kRotate);
    job.heads = {Pointer<T>(heads.q),
                 Pointer<T>(heads.rows.k),
                 Pointer<T>(heads.rows.v),
                 static_cast<int>(heads.q.shape()[1]),
                 static_cast<int>(heads.k.shape()[1]),
                 nullptr,
                 nullptr};
    job.span = static_cast<int>(head_dim / 2);
    job.outputs = (job.heads.q_heads + 2 * job.heads.kv_heads) * job.span;
    if (rope != nullptr) {
      job.heads.cosine = Pointer<float>(rope->cos.view) + heads.rows.begin * job.span;
      job.heads.sine = Pointer<float>(rope->sin.view) + heads.rows.begin * job.span;
    }
    done = LaunchRowTimesMatrix<2>(on, job);
  });
  return done;
}

}  // namespace runahead::cuda
