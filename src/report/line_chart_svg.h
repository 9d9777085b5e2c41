// A line chart with logarithmic axes.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace runahead::report {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // (x, y), both positive
};

struct LineChart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
};

/// Both axes are logarithmic; x is marked where there are points. Points that are not positive and finite are left
/// out. After the eighth series colours repeat.
std::string LineChartSvg(const LineChart& chart);

}  // namespace runahead::report
