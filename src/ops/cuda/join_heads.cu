// Features of heads beside those that are there already.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kThreads = 256;

/// Rows of heads, in vectors of 16 bytes.
struct HeadVectors {
  uint4* data;
  int64_t stride;  // of rows
  int step;        // from a head to the next one; 0: all are the same
};

/// A block per row: copies `each` vectors of every head. Reads and writes each vector once.
__global__ void __launch_bounds__(kThreads)
    CopyHeads(const HeadVectors from, const HeadVectors to, int heads, int each) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const uint4* const source = from.data + static_cast<int64_t>(blockIdx.x) * from.stride;
  uint4* const target = to.data + static_cast<int64_t>(blockIdx.x) * to.stride;
  for (int i = static_cast<int>(threadIdx.x); i < heads * each; i += kThreads) {
    const int head = i / each;
    const int vector = i - head * each;
    target[head * to.step + vector] = source[head * from.step + vector];
  }
}

}  // namespace

bool JoinsHeads(TensorView from) { return Vectorizable(from, from.shape()[2]); }

void JoinHeads(const LaunchOn& on, TensorView from, TensorView to, int64_t offset) {
  const auto per_vector = static_cast<int64_t>(sizeof(uint4) / SizeOf(from.dtype()));
  const int64_t rows = from.rows();
  const bool shared = from.shape()[1] == 1 && to.shape()[1] > 1;
  CHECK(JoinsHeads(from) && offset % per_vector == 0 && to.shape()[2] % per_vector == 0);
  CHECK(to.rows() == rows && (shared || from.shape()[1] == to.shape()[1]));
  const auto vectors = [&](const TensorView& view, int64_t first, bool same) {
    return HeadVectors{static_cast<uint4*>(view.data()) + first / per_vector, view.row_stride() / per_vector,
                       same ? 0 : static_cast<int>(view.shape()[2] / per_vector)};
  };
  Launch(on, &CopyHeads, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, vectors(from, 0, shared),
         vectors(to, offset, false), static_cast<int>(to.shape()[1]), static_cast<int>(from.shape()[2] / per_vector));
}

}  // namespace runahead::cuda
