// The median of measurements.
#pragma once

#include <vector>

namespace runahead {

/// The middle one of at least one value, or the mean of the two in the middle.
double MedianOf(std::vector<double> values);

}  // namespace runahead
