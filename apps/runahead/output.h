// What the program says on stdout and stderr, and progress for people who watch.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "runahead/engine.h"

namespace runahead::cli {

/// Thrown when nobody reads stdout any more: the program then ends quietly.
struct OutputClosed {};

/// Writes all of `text` to stdout, waiting while a pipe is full. Throws OutputClosed, or Error naming the reason.
void WriteOut(std::string_view text);

/// Says `message` as one line on stderr.
void WriteError(std::string message);

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

/// One line on stderr about what will probably not do what was meant.
void Warn(std::string_view message);

/// The last part of a path that names something, for titles: "demo" for "/models/demo/" and for "." inside it.
std::string NameOfFolder(const std::string& path);

/// A picture of a prompt phase that recorded its timeline.
std::string TimelinePicture(const PrefillReport& prefill);

/// Whether stderr is a terminal.
bool SomeoneWatches();

}  // namespace runahead::cli
