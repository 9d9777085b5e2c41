// A chart of bars from zero.
#pragma once

#include <string>
#include <vector>

namespace runahead::report {

struct Bar {
  std::string name;
  double value = 0;  // positive
};

struct BarChart {
  std::string title;
  std::string value_label;
  std::vector<Bar> bars;
  double reach = 0;  // the least value where the axis may end
};

/// Bars below each other, each with its name before it and its value behind it. After the eighth colours repeat.
std::string BarChartSvg(const BarChart& chart);

}  // namespace runahead::report
