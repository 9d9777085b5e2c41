// Embedding: rows of a table, scaled.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kThreads = 256;

/// Ids in device memory, or in the kernel's own parameters.
struct DeviceTokens {
  const int32_t* ids;
  __device__ int32_t operator[](int64_t i) const { return ids[i]; }
};
struct ParameterTokens {
  InlineTokens tokens;
  __device__ int32_t operator[](int64_t i) const { return tokens.ids[i]; }
};

/// A block per token. Moves features * (sizeof(Table) + sizeof(T)) bytes each. kPer divides `features`, and rows are
/// aligned to kPer elements of both types.
template <typename Table, typename T, int kPer, typename Tokens>
__global__ void __launch_bounds__(kThreads)
    EmbedRows(const __grid_constant__ Tokens tokens, const Table* table, int64_t table_stride, float scale, T* out,
              int64_t out_stride, int features) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int64_t row = blockIdx.x;
  const int64_t token = max(tokens[row], 0);  // -1: there was none to choose
  const Table* from = table + token * table_stride;
  T* to = out + row * out_stride;
  for (int i = static_cast<int>(threadIdx.x) * kPer; i < features; i += kThreads * kPer) {
    const auto loaded = Load<kPer>(from + i);
    Vector<T, kPer> stored;
#pragma unroll
    for (int j = 0; j < kPer; ++j) stored.values[j] = FromFloat<T>(scale * ToFloat(loaded.values[j]));
    Store(to + i, stored);
  }
}

template <typename Tokens>
void EmbedAny(const LaunchOn& on, const Tokens& tokens, TensorView table, float scale, TensorView out) {
  const int64_t features = out.row_elements();
  DispatchDevice(table.dtype(), [&](auto table_zero) {
    DispatchDevice(out.dtype(), [&](auto zero) {
      using Table = decltype(table_zero);
      using T = decltype(zero);
      constexpr int kPer = kPerVector<T> < kPerVector<Table> ? kPerVector<T> : kPerVector<Table>;
      const bool vectors = Vectorizable(table, features) && Vectorizable(out, features);
      const auto kernel = vectors ? &EmbedRows<Table, T, kPer, Tokens> : &EmbedRows<Table, T, 1, Tokens>;
      Launch(on, kernel, dim3(static_cast<unsigned>(out.rows())), dim3(kThreads), 0, tokens, Pointer<Table>(table),
             table.row_stride(), scale, Pointer<T>(out), out.row_stride(), static_cast<int>(features));
    });
  });
}

}  // namespace

void Embed(const LaunchOn& on, const int32_t* tokens, TensorView table, float scale, TensorView out) {
  EmbedAny(on, DeviceTokens{tokens}, table, scale, out);
}

void Embed(const LaunchOn& on, const InlineTokens& tokens, TensorView table, float scale, TensorView out) {
  EmbedAny(on, ParameterTokens{tokens}, table, scale, out);
}

}  // namespace runahead::cuda
