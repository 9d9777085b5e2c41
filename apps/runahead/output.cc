#include "output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/file.h"
#include "report/timeline_svg.h"
#include "report/units.h"
#include "runahead/error.h"

namespace runahead::cli {

void WriteOut(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EPIPE) throw OutputClosed();
    if (written < 0) throw Error(fmt::format("stdout: cannot write: {}", std::strerror(errno)));
    text.remove_prefix(static_cast<size_t>(written));
  }
}

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)) {
  if (path_.empty()) return;
  std::error_code error;
  const auto refuse = [&](const char* reason) {
    throw IoError(fmt::format("{}: cannot write: {}", path_.string(), reason));
  };
  if (std::filesystem::is_directory(path_, error)) refuse("it is a folder");
  if (std::filesystem::exists(path_, error)) {
    if (::access(path_.c_str(), W_OK) != 0) refuse(std::strerror(errno));
    return;
  }
  if (error) refuse(error.message().c_str());
  const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
  if (!std::filesystem::is_directory(parent, error)) refuse("its folder does not exist");
  if (::access(parent.c_str(), W_OK | X_OK) != 0) refuse(std::strerror(errno));
}

void OutputFile::Write(std::string_view content) const { WriteFile(path_, content); }

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
