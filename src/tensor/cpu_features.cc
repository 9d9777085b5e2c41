#include "tensor/cpu_features.h"

#include <array>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string_view>

namespace runahead {
namespace {

/// The words of the first line of /proc/cpuinfo that lists instructions: x86 calls it "flags", ARM "Features".
std::set<std::string> WordsOfCpuInfo() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags") && !line.starts_with("Features")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
}

}  // namespace

std::vector<std::string> CpuFeatures() {
  constexpr std::array<std::string_view, 11> kOfInterest = {
      "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve", "sve2"};
  const std::set<std::string> present = WordsOfCpuInfo();
  std::vector<std::string> features;
  for (const std::string_view name : kOfInterest) {
    if (present.contains(std::string(name))) features.emplace_back(name);
  }
  return features;
}

}  // namespace runahead
