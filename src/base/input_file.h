// What a user names as an input: a file, a pipe, or "-" for stdin.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/descriptor.h"

namespace runahead {

/// An open input, read from its begin to its end. A pipe is waited for as long as somebody has it open for writing,
/// and some seconds for the first to open it. Move-only.
class InputFile {
 public:
  /// Throws IoError naming the path and the reason.
  explicit InputFile(const std::string& path);

  /// "stdin" for "-".
  [[nodiscard]] const std::string& name() const { return name_; }
  /// Bytes of a regular file; 0 where nobody knows before the end.
  [[nodiscard]] size_t size() const { return size_; }

  /// At least one byte into `buffer`, or 0 at the end. Throws IoError naming the input and the reason.
  size_t Read(std::span<char> buffer);

 private:
  std::string name_;
  Descriptor file_;
  size_t size_ = 0;
  bool awaits_writer_ = false;  // a named pipe from which nothing came yet
};

/// All bytes of an input. Throws IoError naming the input and the reason, also for more than kLargestInput without an
/// end.
std::string ReadInput(const std::string& path);

inline constexpr size_t kLargestInput = size_t{1} << 30;

}  // namespace runahead
