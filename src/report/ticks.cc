#include "report/ticks.h"

#include <fmt/format.h>

#include <cmath>

#include "base/check.h"
#include "report/units.h"

namespace runahead::report {
namespace {

constexpr double kSlack = 1e-9;  // allowance for rounding, relative

/// 1, 2, 5 or 10 times a power of ten, the least that is not below `raw`.
double RoundStep(double raw) {
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double ratio = raw / power;
  return power * (ratio <= 1 + kSlack ? 1 : ratio <= 2 + kSlack ? 2 : ratio <= 5 + kSlack ? 5 : 10);
}

}  // namespace

std::vector<double> LinearTicks(double end, int count) {
  CHECK_GT(end, 0.0);
  CHECK_GT(count, 0);
  const double step = RoundStep(end / count);
  std::vector<double> ticks;
  for (int i = 0; i * step <= end * (1 + kSlack); ++i) ticks.push_back(i * step);
  return ticks;
}

std::vector<double> LogTicks(double low, double high, int count) {
  CHECK(low > 0 && low <= high);
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::ceil(std::log10(high)));
  std::vector<double> ticks;
  for (const std::vector<int>& leads : {std::vector{1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 5}, {1}}) {
    ticks.clear();
    for (int exponent = first; exponent <= last; ++exponent) {
      for (const int lead : leads) {
        const double value = lead * std::pow(10, exponent);
        if (value >= low * (1 - kSlack) && value <= high * (1 + kSlack)) ticks.push_back(value);
      }
    }
    if (ticks.size() <= static_cast<size_t>(count)) break;
  }
  return ticks;
}

std::vector<double> TicksBetween(double low, double high, int count) {
  CHECK(low > 0 && low < high);
  CHECK_GE(count, 8);
  const double step = RoundStep((high - low) / count);
  std::vector<double> ticks;
  for (double i = std::ceil(low / step - kSlack); i * step <= high * (1 + kSlack); ++i) ticks.push_back(i * step);
  return ticks;
}

std::string TickLabel(double value) {
  constexpr double kLargest = 1e12;
  if (std::abs(value) >= 1000 && std::abs(value) < kLargest && std::round(value) == value) {
    return Grouped(static_cast<int64_t>(value));
  }
  return fmt::format("{:g}", std::abs(value) < 1e-300 ? 0 : value);
}

}  // namespace runahead::report
