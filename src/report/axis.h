// Where values stand along an axis, and which of them are marked.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace runahead::report {

/// How values become pixels. A linear axis begins at zero; a logarithmic one leaves room at both ends.
enum class Scale : unsigned char { kLogarithmic, kLinear };

/// Maps values to pixels. A value type.
class Axis {
 public:
  /// For the values [low, high], 0 < low <= high; of a linear axis only `high` matters.
  Axis(Scale scale, double low, double high, double first_pixel, double last_pixel);

  [[nodiscard]] double Pixel(double value) const;
  /// Ticks of round values, at least three.
  [[nodiscard]] std::vector<double> Ticks() const;
  /// The value halfway between two others, as the axis shows them.
  [[nodiscard]] double Between(double a, double b) const;

 private:
  Scale scale_;
  double low_;
  double high_;
  double first_pixel_;
  double last_pixel_;
};

/// The marks of an axis, in the order of their values: those of `wanted`, the first ones first, whose labels stand
/// clear of each other, and values between them until there are three. `room` is the pixels that a label takes along
/// the axis.
std::vector<double> ClearMarks(const Axis& axis, const std::vector<double>& wanted,
                               const std::function<double(const std::string& label)>& room);

/// Width of a label in pixels, of ordinary digits and letters.
double TextWidth(const std::string& label);

}  // namespace runahead::report
