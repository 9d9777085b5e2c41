#include "ops/devices.h"

#include <fmt/format.h>

#include <charconv>
#include <numeric>

#include "ops/ops.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

constexpr int kMaxCpuRanks = 256;
constexpr int kMaxGpu = 255;

/// The number that `text` is, when it lies within [min, max].
std::optional<int> ParseNumber(std::string_view text, int min, int max) {
  int number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || rest != end || number < min || number > max) return std::nullopt;
  return number;
}

/// Ordinals, and ranges of them, separated by commas; nothing for anything else.
std::vector<RankDevice> ParseGpus(std::string_view text) {
  std::vector<RankDevice> gpus;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    const size_t dash = part.find('-');
    const std::optional<int> first = ParseNumber(part.substr(0, dash), 0, kMaxGpu);
    const std::optional<int> last =
        dash == std::string_view::npos ? first : ParseNumber(part.substr(dash + 1), 0, kMaxGpu);
    if (!first || !last || *first > *last) return {};
    for (int ordinal = *first; ordinal <= *last; ++ordinal) gpus.push_back(RankDevice{ordinal});
    if (comma == std::string_view::npos) return gpus;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

std::vector<RankDevice> ParseDevices(std::string_view text) {
  constexpr std::string_view kCpus = "cpu:";
  constexpr std::string_view kGpus = "cuda:";
  if (text == "cpu") return {RankDevice{}};
  if (text == "cuda") return {RankDevice{0}};
  if (text.starts_with(kCpus)) {
    const std::optional<int> ranks = ParseNumber(text.substr(kCpus.size()), 1, kMaxCpuRanks);
    if (ranks) return std::vector<RankDevice>(static_cast<size_t>(*ranks));
  } else if (text.starts_with(kGpus)) {
    std::vector<RankDevice> gpus = ParseGpus(text.substr(kGpus.size()));
    if (!gpus.empty()) return gpus;
  }
  throw ConfigError(
      fmt::format("devices: expected cpu, cpu:N with N from 1 to {}, cuda, cuda:A,B,... or cuda:A-B, got '{}'",
                  kMaxCpuRanks, text));
}

std::vector<int> ProcessorsOf(int index, const std::vector<int>& threads) {
  const std::vector<int> all = AvailableProcessors();
  const auto rank = threads.begin() + index;
  if (static_cast<size_t>(std::accumulate(threads.begin(), threads.end(), 0)) > all.size()) return {};
  const auto first = all.begin() + std::accumulate(threads.begin(), rank, 0);
  return {first, first + *rank};
}

DType PreferredDType(DType weights, const RankDevice& device) {
  if (device.gpu) return weights;
  return weights == DType::kBF16 && CpuHasNativeBf16() ? DType::kBF16 : DType::kF32;
}

}  // namespace runahead
