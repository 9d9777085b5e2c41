#include "report/axis.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "report/ticks.h"

namespace runahead::report {

Axis::Axis(Scale scale, double low, double high, double first_pixel, double last_pixel)
    : scale_(scale), low_(0), high_(high), first_pixel_(first_pixel), last_pixel_(last_pixel) {
  CHECK(high > 0);
  if (scale == Scale::kLinear) return;
  CHECK(low > 0 && low <= high);
  const double room = low == high ? 2 : std::pow(high / low, 0.05);
  low_ = low / room;
  high_ = high * room;
}

double Axis::Pixel(double value) const {
  const double share = scale_ == Scale::kLinear ? value / high_ : std::log(value / low_) / std::log(high_ / low_);
  return first_pixel_ + (last_pixel_ - first_pixel_) * share;
}

std::vector<double> Axis::Ticks() const {
  constexpr int kLinear = 7;
  constexpr int kLogarithmic = 14;
  constexpr int kBetween = 8;
  constexpr size_t kFewestTicks = 3;
  if (scale_ == Scale::kLinear) return LinearTicks(high_, kLinear);
  std::vector<double> ticks = LogTicks(low_, high_, kLogarithmic);
  return ticks.size() < kFewestTicks ? TicksBetween(low_, high_, kBetween) : ticks;
}

double Axis::Between(double a, double b) const {
  const double middle = scale_ == Scale::kLinear ? (a + b) / 2 : std::sqrt(a * b);
  if (std::round(middle) == middle) return middle;
  const double quarter = (std::max(a, b) - std::min(a, b)) / 4;
  for (double digit = std::floor(std::log10(middle)); digit >= -6; --digit) {  // as few as stay well between the two
    const double unit = std::pow(10, digit);
    const double round = std::round(middle / unit) * unit;
    if (round > std::min(a, b) + quarter && round < std::max(a, b) - quarter) return round;
  }
  return middle;
}

std::vector<double> ClearMarks(const Axis& axis, const std::vector<double>& wanted,
                               const std::function<double(const std::string& label)>& room) {
  constexpr size_t kFewest = 3;
  constexpr int kMostTries = 16;
  std::vector<double> marks;
  const auto add = [&](double value) {
    const double needed = room(TickLabel(value));
    for (const double mark : marks) {
      const double apart = std::abs(axis.Pixel(value) - axis.Pixel(mark));
      if (apart < (needed + room(TickLabel(mark))) / 2) return;
    }
    marks.insert(std::lower_bound(marks.begin(), marks.end(), value), value);
  };
  for (const double value : wanted) add(value);
  for (int i = 0; i < kMostTries && marks.size() >= 2 && marks.size() < kFewest; ++i) {
    add(axis.Between(marks[0], marks[1]));
  }
  return marks;
}

double TextWidth(const std::string& label) {
  constexpr double kCharacter = 7;  // pixels, at 12 px
  return kCharacter * static_cast<double>(label.size());
}

}  // namespace runahead::report
