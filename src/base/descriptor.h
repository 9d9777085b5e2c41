// Open files of the kernel: closed by themselves, read and written whole, whether they block or not.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace runahead {

/// Who may use a new file, less the user's mask.
inline constexpr mode_t kNewFileMode = 0666;

/// Owns a descriptor, or none (-1). Move-only.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { Close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  explicit operator bool() const { return fd_ >= 0; }
  [[nodiscard]] int get() const { return fd_; }
  void Close();

 private:
  int fd_ = -1;
};

/// Writes all of `text`, waiting where a pipe that does not block is full. Returns 0, or errno.
int WriteAll(int fd, std::string_view text);

/// Reads at least one byte, waiting where a pipe that does not block is empty; 0 bytes is the end. Returns the bytes
/// read, or -errno.
ssize_t ReadSome(int fd, std::span<char> buffer);

/// The descriptor of this process that `path` is another name of: 1 for /dev/stdout, 63 for /dev/fd/63. Opening such
/// a path again would truncate or rewind what the shell redirected.
std::optional<int> DescriptorNamedBy(const std::filesystem::path& path);

}  // namespace runahead
