// What the CPU's matrix products are made of: for reports and ceilings.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/dtype.h"

namespace runahead {

/// The kernel that multiplies activations of dtype `compute` on this processor: "AMX_BF16", "AVX512_BF16", or vectors
/// of f32 by the name that Highway gives them, "AVX2".
std::string_view CpuMatmulKernel(DType compute);

/// The same for weights in int8 and int4: "AMX_INT8", "AVX512_VNNI", ...
std::string_view CpuIntegerKernel();

/// Keeps the calling thread busy with that kernel's products of registers, which no memory slows down, for a time
/// proportional to `rounds`: some 10 to 100 ns each. Returns the floating-point operations done.
double SpinCpuMatmulKernel(DType compute, int64_t rounds);

}  // namespace runahead
