#include "engine/devices.h"

#include <fmt/format.h>

#include <charconv>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int kMaxCpuRanks = 256;

}  // namespace

int ParseCpuRanks(std::string_view text) {
  if (text == "cpu") return 1;
  if (text == "cuda" || text.starts_with("cuda:")) {
    throw ConfigError(fmt::format("devices: '{}': this build has no CUDA support", text));
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

}  // namespace runahead
