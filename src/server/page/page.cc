#include "server/page/page.h"

#include <array>
#include <utility>

#include "server/page/page_files.h"

namespace runahead::server {
namespace {

constexpr std::string_view kFolder = "/page/";
constexpr std::string_view kSample = "sample.json";

std::string_view ContentType(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kTypes = {
      {{".html", "text/html; charset=utf-8"},
       {".css", "text/css; charset=utf-8"},
       {".js", "text/javascript; charset=utf-8"},
       {".svg", "image/svg+xml"},
       {".json", "application/json"}}};
  for (const auto& [ending, type] : kTypes) {
    if (name.ends_with(ending)) return type;
  }
  return "text/plain; charset=utf-8";
}

}  // namespace

std::optional<PageFile> FindPage(std::string_view path) {
  if (path == "/") path = "/page/index.html";
  if (!path.starts_with(kFolder)) return std::nullopt;
  const std::string_view name = path.substr(kFolder.size());
  if (name == kSample) return PageFile{ContentType(name), SampleDocument()};
  for (const NamedText& file : PageFiles()) {
    if (file.name == name) return PageFile{ContentType(name), file.text};
  }
  return std::nullopt;
}

}  // namespace runahead::server
