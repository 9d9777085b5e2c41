#include "report/units.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace runahead::report {
namespace {

/// Three significant digits without an exponent.
std::string ThreeDigits(double value) {
  const double size = std::abs(value);
  if (size < 9.995) return fmt::format("{:.2f}", value);
  if (size < 99.95) return fmt::format("{:.1f}", value);
  return fmt::format("{:.0f}", value);
}

}  // namespace

std::string Bytes(size_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1023.5 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{} {}", ThreeDigits(value), kUnits.at(unit));
}

std::string Grouped(int64_t value) {
  std::string digits = std::to_string(value);
  const std::ptrdiff_t first = value < 0 ? 1 : 0;
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > first; at -= 3) {
    digits.insert(static_cast<size_t>(at), 1, ',');
  }
  return digits;
}

std::string Milliseconds(double ms) {
  if (std::abs(ms) < 0.9995) return fmt::format("{:.3f} ms", ms);
  if (std::abs(ms) < 9999.5) return ThreeDigits(ms) + " ms";
  return ThreeDigits(ms / 1000) + " s";
}

std::string Rate(size_t bytes, double ms) {
  if (!(ms > 0)) return "";
  return ThreeDigits(static_cast<double>(bytes) / ms / 1e6) + " GB/s";
}

}  // namespace runahead::report
