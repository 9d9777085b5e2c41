#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace runahead::report {
namespace {

// Colours that are told apart with the common colour blindnesses too (after Okabe and Ito 2008).
constexpr std::string_view kStyle = R"(<style>
text { font: 12px system-ui, sans-serif }
.title { font-size: 15px; font-weight: 600 }
.page { fill: #ffffff } .ink { fill: #1d2329 } .faint { fill: #5d6873 }
.axis { stroke: #8a949e } .grid { stroke: #e3e7eb } .layer { stroke: #ffffff; stroke-width: 0.6 }
.compute { fill: #2f6fb3 } .odd { fill-opacity: 0.8 } .wait { fill: #e69f00 } .send { fill: #009e73; fill-opacity: 0.75 } .receive { fill: #cc79a7 }
polyline { fill: none; stroke-width: 2 } circle { stroke: none } .bar { fill: currentColor }
.s0 { color: #0072b2 } .s1 { color: #d55e00 } .s2 { color: #009e73 } .s3 { color: #cc79a7 }
.s4 { color: #b08900 } .s5 { color: #3a9bd0 } .s6 { color: #555555 } .s7 { color: #7a4fb5 }
polyline, .key { stroke: currentColor } circle { fill: currentColor } .key { stroke-width: 2 }
@media (prefers-color-scheme: dark) {
.page { fill: #14181c } .ink { fill: #e8ecf0 } .faint { fill: #9aa5b0 }
.axis { stroke: #66717c } .grid { stroke: #2a3138 } .layer { stroke: #14181c }
.compute { fill: #5b9ee0 } .wait { fill: #f0b73a } .send { fill: #2cc79a } .receive { fill: #e39cc4 }
.s0 { color: #4aa8e0 } .s1 { color: #f07f33 } .s2 { color: #2cc79a } .s3 { color: #e39cc4 }
.s4 { color: #e0bd3a } .s5 { color: #8ccdf0 } .s6 { color: #b5b5b5 } .s7 { color: #ad8ae0 }
}
</style>
)";

/// Two decimals without trailing zeros.
std::string Number(double value) {
  std::string text = fmt::format("{:.2f}", std::isfinite(value) ? value : 0.0);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string Closing(std::string_view element, std::string_view tooltip) {
  if (tooltip.empty()) return "/>\n";
  return fmt::format("><title>{}</title></{}>\n", EscapeXml(tooltip), element);
}

}  // namespace

std::string EscapeXml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        if (static_cast<unsigned char>(c) >= 0x20 || c == '\t' || c == '\n') escaped += c;
    }
  }
  return escaped;
}

SvgCanvas::SvgCanvas(double width, double height, std::string_view title) {
  const std::string w = Number(width);
  const std::string h = Number(height);
  document_ = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\">\n"
      "<title>{2}</title>\n{3}<rect class=\"page\" width=\"{0}\" height=\"{1}\"/>\n",
      w, h, EscapeXml(title), kStyle);
}

void SvgCanvas::Rect(double x, double y, double width, double height, std::string_view classes,
                     std::string_view tooltip) {
  document_ += fmt::format(R"(<rect class="{}" x="{}" y="{}" width="{}" height="{}")", classes, Number(x), Number(y),
                           Number(width), Number(height)) +
               Closing("rect", tooltip);
}

void SvgCanvas::Line(double x1, double y1, double x2, double y2, std::string_view classes) {
  document_ += fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", classes, Number(x1),
                           Number(y1), Number(x2), Number(y2));
}

void SvgCanvas::Polyline(std::span<const std::pair<double, double>> points, std::string_view classes) {
  document_ += fmt::format("<polyline class=\"{}\" points=\"", classes);
  for (const auto& [x, y] : points) document_ += Number(x) + "," + Number(y) + " ";
  document_ += "\"/>\n";
}

void SvgCanvas::Dot(double x, double y, std::string_view classes, std::string_view tooltip) {
  document_ += fmt::format(R"(<circle class="{}" cx="{}" cy="{}" r="3.5")", classes, Number(x), Number(y)) +
               Closing("circle", tooltip);
}

void SvgCanvas::Text(double x, double y, std::string_view text, std::string_view classes, Anchor anchor) {
  const char* side = anchor == Anchor::kStart ? "start" : anchor == Anchor::kMiddle ? "middle" : "end";
  document_ += fmt::format("<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n", classes, Number(x),
                           Number(y), side, EscapeXml(text));
}

std::string StackSvg(std::span<const std::string> documents) {
  const auto attribute = [](const std::string& document, std::string_view name) {
    const size_t begin = document.find(fmt::format(" {}=\"", name));
    CHECK(begin != std::string::npos);
    return std::stod(document.substr(begin + name.size() + 3));
  };
  double width = 0;
  double height = 0;
  std::string inner;
  for (const std::string& document : documents) {
    CHECK(document.starts_with("<svg "));
    inner += fmt::format("<svg y=\"{}\" {}", Number(height), document.substr(5));
    width = std::max(width, attribute(document, "width"));
    height += attribute(document, "height");
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\">\n{2}</svg>\n",
      Number(width), Number(height), inner);
}

}  // namespace runahead::report
