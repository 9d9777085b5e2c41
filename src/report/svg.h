// Writes SVG: self-contained, and readable on light and dark pages.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace runahead::report {

/// `text` for use in XML: markup escaped, control characters that XML forbids left out.
std::string EscapeXml(std::string_view text);

inline constexpr size_t kSeriesColours = 8;  // classes s0, s1, ...

/// A drawing that grows element by element. Sizes are pixels from the top left. Colours come from classes that the
/// style sheet defines for both schemes: ink, faint, axis, grid, compute, wait, send, receive, layer, bar, and s0 to
/// s7 for series.
class SvgCanvas {
 public:
  enum class Anchor : unsigned char { kStart, kMiddle, kEnd };

  SvgCanvas(double width, double height, std::string_view title);

  void Rect(double x, double y, double width, double height, std::string_view classes, std::string_view tooltip = "");
  void Line(double x1, double y1, double x2, double y2, std::string_view classes);
  void Polyline(std::span<const std::pair<double, double>> points, std::string_view classes);
  void Dot(double x, double y, std::string_view classes, std::string_view tooltip);
  void Text(double x, double y, std::string_view text, std::string_view classes = "ink",
            Anchor anchor = Anchor::kStart);

  /// The whole document.
  [[nodiscard]] std::string Finish() const { return document_ + "</svg>\n"; }

 private:
  std::string document_;
};

/// Documents of SvgCanvas below each other in one.
std::string StackSvg(std::span<const std::string> documents);

}  // namespace runahead::report
