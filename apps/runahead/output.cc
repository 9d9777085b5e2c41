#include "output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/descriptor.h"
#include "report/timeline_svg.h"
#include "report/units.h"
#include "runahead/error.h"

namespace runahead::cli {

void WriteOut(std::string_view text) {
  const int reason = WriteAll(STDOUT_FILENO, text);
  if (reason == EPIPE) throw OutputClosed();
  if (reason != 0) throw Error(fmt::format("stdout: cannot write: {}", std::strerror(reason)));
}

void WriteError(std::string message) {
  for (char& c : message) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  (void)WriteAll(STDERR_FILENO, fmt::format("runahead: {}\n", message));
}

std::string TimelinePicture(const PrefillReport& prefill) {
  report::TimelineSvgOptions options;
  options.title = fmt::format("Prompt phase of {} tokens: {} over {} ranks, {}", report::Grouped(prefill.cuts.back()),
                              Name(prefill.strategy), prefill.ranks(), report::Milliseconds(prefill.ttft_ms));
  for (size_t i = 0; i < prefill.members.size(); ++i) {
    options.lanes.push_back(fmt::format("rank {}: {} tokens", prefill.members[i],
                                        report::Grouped(prefill.cuts[i + 1] - prefill.cuts[i])));
  }
  return report::TimelineSvg(prefill.timeline, options);
}

std::string NameOfFolder(const std::string& path) {
  std::filesystem::path whole = std::filesystem::path(path).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();
  if (whole.filename() != "." && whole.filename() != "..") return whole.filename().string();
  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::canonical(whole, error);
  return error ? path : resolved.filename().string();
}

void Warn(std::string_view message) { std::fputs(fmt::format("runahead: warning: {}\n", message).c_str(), stderr); }

bool SomeoneWatches() { return ::isatty(STDERR_FILENO) == 1; }

void Progress::Show(double share) {
  constexpr auto kPatience = std::chrono::seconds(1);
  const int percent = static_cast<int>(100 * share);
  if (percent == shown_percent_ || !SomeoneWatches() || std::chrono::steady_clock::now() - begin_ < kPatience) return;
  std::fputs(fmt::format("\r\033[K{}: {} %", what_, percent).c_str(), stderr);
  shown_percent_ = percent;
}

void Progress::Clear() {
  if (shown_percent_ >= 0) std::fputs("\r\033[K", stderr);
  shown_percent_ = -1;
}

}  // namespace runahead::cli
