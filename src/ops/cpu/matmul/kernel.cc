#include "ops/cpu/matmul/kernel.h"

#include "ops/cpu_kernels.h"

namespace runahead {
namespace cpu {

std::vector<Kernel> KernelsFor(DType compute) {
  std::vector<Kernel> kernels;
  if (compute == DType::kBF16) {
    if (const Kernel* tiles = Bf16TileKernel()) kernels.push_back(*tiles);
    if (const Kernel* vectors = Bf16VectorKernel()) kernels.push_back(*vectors);
  }
  kernels.push_back(F32Kernel());
  return kernels;
}

const Kernel& KernelFor(DType compute) {
  static const Kernel bf16 = KernelsFor(DType::kBF16).front();
  static const Kernel f32 = F32Kernel();
  return compute == DType::kBF16 ? bf16 : f32;
}

}  // namespace cpu

std::string_view CpuMatmulKernel(DType compute) { return cpu::KernelFor(compute).name; }

double SpinCpuMatmulKernel(DType compute, int64_t rounds) { return cpu::KernelFor(compute).spin(rounds); }

}  // namespace runahead
