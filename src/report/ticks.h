// Where the marks of an axis stand.
#pragma once

#include <string>
#include <vector>

namespace runahead::report {

/// Multiples of 1, 2 or 5 times a power of ten from 0 to at most `end`, about `count` of them. `end` must be
/// positive.
std::vector<double> LinearTicks(double end, int count);

/// Multiples 1 to 9 of powers of ten within [low, high]; where those are more than `count`, 1, 2 and 5 alone, or
/// powers of ten alone. Needs 0 < low <= high.
std::vector<double> LogTicks(double low, double high, int count);

/// Multiples of 1, 2 or 5 times a power of ten within [low, high], at least three and about `count` of them. Needs
/// 0 < low < high and a count of at least eight.
std::vector<double> TicksBetween(double low, double high, int count);

/// The shortest decimal of a tick: "0.05", "200", "16,384".
std::string TickLabel(double value);

}  // namespace runahead::report
