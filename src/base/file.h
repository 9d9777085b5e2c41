// Whole files: read into memory, or mapped read-only.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace runahead {

/// The bytes of a regular file. Throws IoError naming the path and the reason.
std::string ReadFile(const std::filesystem::path& path);

/// Replaces a file's content. Throws IoError naming the path and the reason.
void WriteFile(const std::filesystem::path& path, std::string_view content);

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
};

}  // namespace runahead
