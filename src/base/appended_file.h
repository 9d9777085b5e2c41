// A file of lines that grows while work goes on, and that a later run goes on with.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "base/descriptor.h"

namespace runahead {

/// A regular file that lines are appended to, each whole or not at all. What a killed run left of its last line stays
/// until CutTail. Only one AppendedFile at a time, of any process, has the file. Move-only; one thread at a time.
class AppendedFile {
 public:
  /// Makes the file where it does not exist. Throws IoError naming the path and the reason: also for a pipe, a
  /// device, and a file that another run appends to.
  explicit AppendedFile(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  /// Tells each whole line, without its end, and its number from 1. Returns what stands behind the last line's end.
  /// Throws IoError naming the path and the reason, as do the others, and what `on_line` throws.
  std::string ReadLines(const std::function<void(std::string_view line, int64_t number)>& on_line);
  /// Drops what stands behind the last line's end, as the last ReadLines found it.
  void CutTail();
  /// `line` with its end. After an error the file is as it was before.
  void Append(std::string_view line);

 private:
  [[noreturn]] void Refuse(std::string_view what, int reason) const;
  void Cut(off_t size);

  std::filesystem::path path_;
  Descriptor file_;
  off_t lines_end_ = 0;  // bytes up to the last line's end
};

}  // namespace runahead
