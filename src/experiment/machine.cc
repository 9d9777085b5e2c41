#include "experiment/machine.h"

#include <unistd.h>

#include "ops/cpu_kernels.h"
#include "ops/ops.h"
#include "tensor/cpu_device.h"
#include "tensor/cpu_features.h"

namespace runahead {

MachineFacts DescribeMachine() {
  MachineFacts facts;
  facts.cpu = CpuModel();
  facts.processors = static_cast<int>(AvailableProcessors().size());
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_bytes > 0) facts.memory_bytes = static_cast<size_t>(pages) * static_cast<size_t>(page_bytes);
  facts.features = CpuFeatures();
  facts.native_bf16 = CpuHasNativeBf16();
  facts.f32_kernel = CpuMatmulKernel(DType::kF32);
  facts.bf16_kernel = CpuMatmulKernel(DType::kBF16);
  facts.int8_kernel = CpuIntegerKernel();
  return facts;
}

}  // namespace runahead
