// Rows of a tensor moved to its front.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kColumns = 8;  // words of 2 bytes, or more, that a block moves of each row
constexpr int kRows = 32;    // rows that it moves at a time

/// A block per kColumns words of all rows, [kColumns, kRows] threads: rows are moved kRows at a time, all read before
/// any is written. The rows read later lie behind those that are written. Reads and writes each element once.
template <typename Word>
__global__ void __launch_bounds__(kColumns* kRows)
    MoveRows(Word* x, int64_t stride, const int32_t* rows, int count, int words) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int column = static_cast<int>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x);
  for (int first = 0; first < count; first += kRows) {
    const int row = first + static_cast<int>(threadIdx.y);
    const bool moves = row < count && column < words;
    Word word{};
    if (moves) word = x[rows[row] * stride + column];
    __syncthreads();
    if (moves) x[row * stride + column] = word;
  }
}

template <typename Word>
void LaunchMove(const LaunchOn& on, TensorView x, const int32_t* rows, int64_t count) {
  const auto per_word = static_cast<int64_t>(sizeof(Word) / SizeOf(x.dtype()));
  const int64_t words = x.row_elements() / per_word;
  Launch(on, &MoveRows<Word>, dim3(static_cast<unsigned>((words + kColumns - 1) / kColumns)), dim3(kColumns, kRows),
         0, static_cast<Word*>(x.data()), x.row_stride() / per_word, rows, static_cast<int>(count),
         static_cast<int>(words));
}

}  // namespace

void KeepRows(const LaunchOn& on, TensorView x, const int32_t* rows, int64_t count) {
  if (Vectorizable(x, x.row_elements())) return LaunchMove<uint4>(on, x, rows, count);
  if (SizeOf(x.dtype()) == sizeof(uint32_t)) return LaunchMove<uint32_t>(on, x, rows, count);
  LaunchMove<uint16_t>(on, x, rows, count);
}

}  // namespace runahead::cuda
