#include "ops/cpu/matmul/kernel.h"

#include "ops/cpu/matmul/integer_panels.h"
#include "ops/cpu_kernels.h"
#include "runahead/error.h"

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

std::vector<Kernel> IntegerKernelsFor(WeightFormat format) {
  std::vector<Kernel> kernels;
  for (const Kernel* found :
       {Int8TileKernel(), VnniKernel(), Avx2IntegerKernel(), NeonDotKernel(), PlainIntegerKernel()}) {
    if (found == nullptr) continue;
    Kernel& kernel = kernels.emplace_back(*found);
    kernel.format = format;
    kernel.unit_multiple = kDepthMultiple / 4;
    if (kernel.multiply == nullptr) kernel.multiply = &MultiplyIntegers;
    if (format == WeightFormat::kInt4) kernel.block_bytes /= 2;  // of nibbles, which become codes
  }
  return kernels;
}

const Kernel& KernelFor(DType compute, WeightFormat format) {
  static const Kernel bf16 = KernelsFor(DType::kBF16).front();
  static const Kernel f32 = F32Kernel();
  static const Kernel int8 = IntegerKernelsFor(WeightFormat::kInt8).front();
  static const Kernel int4 = IntegerKernelsFor(WeightFormat::kInt4).front();
  switch (format) {
    case WeightFormat::kStored:
      return compute == DType::kBF16 ? bf16 : f32;
    case WeightFormat::kInt8:
      return int8;
    case WeightFormat::kInt4:
      return int4;
    case WeightFormat::kFp8:
      throw ConfigError("--weights fp8: GPUs have it; expected stored, int8 or int4 on CPU ranks");
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown weight format");
}

}  // namespace cpu

std::string_view CpuMatmulKernel(DType compute) { return cpu::KernelFor(compute).name; }

std::string_view CpuIntegerKernel() { return cpu::KernelFor(DType::kF32, WeightFormat::kInt8).name; }

double SpinCpuMatmulKernel(DType compute, int64_t rounds) { return cpu::KernelFor(compute).spin(rounds); }

}  // namespace runahead
