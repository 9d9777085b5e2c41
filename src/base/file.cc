#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>
#include <mutex>
#include <utility>

#include "base/descriptor.h"
#include "runahead/error.h"

namespace runahead {
namespace {

[[noreturn]] void ThrowErrno(const std::filesystem::path& path, const char* what) {
  throw IoError(fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(errno)));
}

Descriptor OpenRegular(const std::filesystem::path& path) {
  // Without O_NONBLOCK a named pipe would be waited for.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file) throw IoError(fmt::format("{}: cannot open: {}", path.string(), WhyNotOpened(path, errno)));
  return file;
}

size_t RegularFileSize(const Descriptor& file, const std::filesystem::path& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) ThrowErrno(path, "read");
  const auto refuse = [&](const char* kind) {
    throw IoError(fmt::format("{}: is {}, not a regular file", path.string(), kind));
  };
  if (S_ISDIR(info.st_mode)) refuse("a folder");
  if (S_ISFIFO(info.st_mode)) refuse("a pipe");
  if (S_ISSOCK(info.st_mode)) refuse("a socket");
  if (!S_ISREG(info.st_mode)) refuse("a device");
  return static_cast<size_t>(info.st_size);
}

/// Where a file is mapped. Entries are never freed, only reused, so that a signal handler may walk the list.
struct Mapping {
  std::atomic<const std::byte*> begin = nullptr;  // null: free
  std::atomic<size_t> size = 0;
  std::array<char, PATH_MAX> path{};
  Mapping* next = nullptr;
};

std::atomic<Mapping*> mappings = nullptr;
std::mutex mappings_mutex;  // of those that add and remove

Mapping* AddMapping(const std::byte* begin, size_t size, const std::string& path) {
  const std::lock_guard lock(mappings_mutex);
  Mapping* entry = mappings;
  while (entry != nullptr && entry->begin != nullptr) entry = entry->next;
  if (entry == nullptr) {
    entry = new Mapping;
    entry->next = mappings;
    mappings = entry;
  }
  entry->path[path.copy(entry->path.data(), entry->path.size() - 1)] = '\0';
  entry->size = size;
  entry->begin = begin;
  return entry;
}

void RemoveMapping(void* entry) {
  const std::lock_guard lock(mappings_mutex);
  static_cast<Mapping*>(entry)->begin = nullptr;
}

}  // namespace

std::string ReadFile(const std::filesystem::path& path) {
  const Descriptor file = OpenRegular(path);
  const size_t size = RegularFileSize(file, path);
  if (size > kLargestFile) {
    throw IoError(
        fmt::format("{}: its {} bytes are more than the {} of any such file", path.string(), size, kLargestFile));
  }
  std::string content(size, '\0');
  for (size_t filled = 0; filled < size;) {
    const ssize_t got = ReadSome(file.get(), std::span(content).subspan(filled));
    if (got < 0) errno = static_cast<int>(-got);
    if (got < 0) ThrowErrno(path, "read");
    if (got == 0) content.resize(filled);  // it was cut short meanwhile
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  return content;
}

void WriteFile(const std::filesystem::path& path, std::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!file) ThrowErrno(path, "write");
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) ThrowErrno(path, "write");
}

std::string WhyNotOpened(const std::filesystem::path& path, int error) {
  std::error_code ignored;
  if (error == ENOENT && std::filesystem::is_symlink(path, ignored)) {
    return fmt::format("it is a link to {}, which does not exist",
                       std::filesystem::read_symlink(path, ignored).string());
  }
  return std::strerror(error);
}

const char* MappedFileAt(const void* address) noexcept {
  const auto* at = static_cast<const std::byte*>(address);
  for (const Mapping* entry = mappings; entry != nullptr; entry = entry->next) {
    const std::byte* begin = entry->begin;
    if (begin != nullptr && at >= begin && at < begin + entry->size) return entry->path.data();
  }
  return nullptr;
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file = OpenRegular(path);
  size_ = RegularFileSize(file, path);
  if (size_ == 0) return;
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (mapped == MAP_FAILED) ThrowErrno(path, "map");
  data_ = static_cast<const std::byte*>(mapped);
  entry_ = AddMapping(data_, size_, path.string());
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  RemoveMapping(entry_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      entry_(std::exchange(other.entry_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(entry_, other.entry_);
  return *this;
}

}  // namespace runahead
