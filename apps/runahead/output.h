// What the program writes: stdout, files, and progress for people who watch.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>

#include "runahead/engine.h"

namespace runahead::cli {

/// Thrown when nobody reads stdout any more: the program then ends quietly.
struct OutputClosed {};

/// Writes all of `text` to stdout at once. Throws OutputClosed, or Error naming the reason.
void WriteOut(std::string_view text);

/// A file to be written when the work is done. The path is checked when this is made, and nothing is created.
class OutputFile {
 public:
  OutputFile() = default;
  /// An empty path is no file. Throws IoError naming a path that cannot be written.
  explicit OutputFile(std::filesystem::path path);

  explicit operator bool() const { return !path_.empty(); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  void Write(std::string_view content) const;

 private:
  std::filesystem::path path_;
};

/// One line on stderr that is rewritten while work goes on, and wiped at the end. Says nothing unless stderr is a
/// terminal and the work has taken a second.
class Progress {
 public:
  explicit Progress(std::string what) : what_(std::move(what)) {}
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `share` of the work is done, 0 to 1.
  void Show(double share);
  void Clear();

 private:
  std::string what_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  int shown_percent_ = -1;
};

/// A picture of a prompt phase that recorded its timeline.
std::string TimelinePicture(const PrefillReport& prefill);

/// Whether stderr is a terminal.
bool SomeoneWatches();

}  // namespace runahead::cli
