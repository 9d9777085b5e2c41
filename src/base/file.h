// Whole files: read into memory, or mapped read-only.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace runahead {

/// The bytes of a regular file, at most kLargestFile of them. Throws IoError naming the path and the reason; a pipe
/// in the file's place is refused, not waited for.
std::string ReadFile(const std::filesystem::path& path);

/// Beyond any configuration, vocabulary or measurement.
inline constexpr size_t kLargestFile = size_t{256} << 20;

/// Writes a scratch file in place. What users ask for goes through OutputFile.
void WriteFile(const std::filesystem::path& path, std::string_view content);

/// Why opening `path` failed with `error`, an errno: "No such file or directory", or where a dangling link leads.
std::string WhyNotOpened(const std::filesystem::path& path, int error);

/// The path of the mapped file that `address` lies in, or null. Async-signal-safe: for a handler of SIGBUS, which a
/// file raises that somebody cuts short while it is mapped.
const char* MappedFileAt(const void* address) noexcept;

/// A regular file mapped read-only for the life of the object. Move-only; the bytes may be shared by threads.
class MappedFile {
 public:
  /// Throws IoError naming the path and the reason.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* entry_ = nullptr;  // of the list that MappedFileAt searches
};

}  // namespace runahead
