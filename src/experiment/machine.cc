#include "experiment/machine.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>
#include <sstream>
#include <string_view>

#include "ops/cpu_kernels.h"
#include "ops/ops.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

/// The value of the first line "name : value" of /proc/cpuinfo; empty when there is none.
std::string CpuInfo(std::string_view name) {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(name)) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "";
}

std::vector<std::string> Features() {
  constexpr std::array<std::string_view, 10> kOfInterest = {"avx2",     "fma",   "avx512f", "avx512_bf16", "amx_bf16",
                                                            "amx_tile", "asimd", "bf16",    "sve",         "sve2"};
  const std::string flags = CpuInfo("flags");
  std::istringstream words(flags.empty() ? CpuInfo("Features") : flags);
  const std::set<std::string> present{std::istream_iterator<std::string>(words), {}};
  std::vector<std::string> features;
  for (const std::string_view name : kOfInterest) {
    if (present.contains(std::string(name))) features.emplace_back(name);
  }
  return features;
}

}  // namespace

MachineFacts DescribeMachine() {
  MachineFacts facts;
  facts.cpu = CpuModel();
  facts.processors = static_cast<int>(AvailableProcessors().size());
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_bytes > 0) facts.memory_bytes = static_cast<size_t>(pages) * static_cast<size_t>(page_bytes);
  facts.features = Features();
  facts.native_bf16 = CpuHasNativeBf16();
  facts.f32_kernel = CpuMatmulKernel(DType::kF32);
  facts.bf16_kernel = CpuMatmulKernel(DType::kBF16);
  return facts;
}

}  // namespace runahead
