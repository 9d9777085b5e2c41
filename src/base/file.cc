#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "runahead/error.h"

namespace runahead {
namespace {

[[noreturn]] void ThrowErrno(const std::filesystem::path& path, const char* what) {
  throw IoError(fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(errno)));
}

/// An open file that closes itself.
class Descriptor {
 public:
  explicit Descriptor(const std::filesystem::path& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) ThrowErrno(path, "open");
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

size_t RegularFileSize(const Descriptor& file, const std::filesystem::path& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) ThrowErrno(path, "read");
  if (!S_ISREG(info.st_mode)) throw IoError(fmt::format("{}: is not a regular file", path.string()));
  return static_cast<size_t>(info.st_size);
}

}  // namespace

std::string ReadFile(const std::filesystem::path& path) {
  const Descriptor file(path);
  std::string content(RegularFileSize(file, path), '\0');
  size_t filled = 0;
  while (filled < content.size()) {
    const ssize_t got = ::read(file.get(), content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) ThrowErrno(path, "read");
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  content.resize(filled);
  return content;
}

void WriteFile(const std::filesystem::path& path, std::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!file) ThrowErrno(path, "write");
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) ThrowErrno(path, "write");
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file(path);
  size_ = RegularFileSize(file, path);
  if (size_ == 0) return;
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (mapped == MAP_FAILED) ThrowErrno(path, "map");
  data_ = static_cast<const std::byte*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace runahead
