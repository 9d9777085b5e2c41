#include "engine/devices.h"

#include <fmt/format.h>

#include <charconv>
#include <numeric>

#include "ops/ops.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

constexpr int kMaxCpuRanks = 256;

}  // namespace

int ParseCpuRanks(std::string_view text) {
  if (text == "cpu") return 1;
  if (text == "cuda" || text.starts_with("cuda:")) {
    throw ConfigError(fmt::format("devices: '{}': models run on CPU ranks only", text));
  }
  int ranks = 0;
  const bool prefixed = text.starts_with("cpu:");
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(prefixed ? text.data() + 4 : end, end, ranks);
  if (!prefixed || error != std::errc() || rest != end || ranks < 1 || ranks > kMaxCpuRanks) {
    throw ConfigError(
        fmt::format("devices: expected cpu or cpu:N with N from 1 to {}, got '{}'", kMaxCpuRanks, text));
  }
  return ranks;
}

std::vector<int> ProcessorsOf(int index, const std::vector<int>& threads) {
  const std::vector<int> all = AvailableProcessors();
  const auto rank = threads.begin() + index;
  if (static_cast<size_t>(std::accumulate(threads.begin(), threads.end(), 0)) > all.size()) return {};
  const auto first = all.begin() + std::accumulate(threads.begin(), rank, 0);
  return {first, first + *rank};
}

DType PreferredDType(DType weights) {
  return weights == DType::kBF16 && CpuHasNativeBf16() ? DType::kBF16 : DType::kF32;
}

}  // namespace runahead
