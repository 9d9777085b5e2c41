// The web page that the server shows: its files are parts of the program.
#pragma once

#include <optional>
#include <string_view>

namespace runahead::server {

struct PageFile {
  std::string_view content_type;
  std::string_view text;  // lives as long as the program
};

/// What a browser may do with any of these files, the value of Content-Security-Policy: scripts, styles, pictures and
/// connections of this server alone, nothing inline.
inline constexpr std::string_view kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The file at `path`, which has no query: "/", "/page/NAME", or "/page/sample.json", a long document with questions
/// about it. Nothing: there is none. Thread-safe; the first call for the sample writes it, which takes milliseconds.
std::optional<PageFile> FindPage(std::string_view path);

}  // namespace runahead::server
