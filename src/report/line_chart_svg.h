// Charts of series of points: lines, or bars where lines would be dots.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "report/axis.h"

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
  Scale y_scale = Scale::kLogarithmic;
  double y_reach = 0;  // the least value where a linear y axis, or the bars' one, may end
};

/// Lines where several series have several x. With one x, or one series, a bar for each point: from zero, with its
/// value. x is marked where there are points; with a linear y axis x is linear too, unless its values differ by more
/// than sixteen times. Every axis has three labels at least, none touching another. Points that are not positive and
/// finite are left out. After the eighth series colours repeat.
std::string LineChartSvg(const LineChart& chart);

}  // namespace runahead::report
