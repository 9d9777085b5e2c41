#include "base/appended_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "runahead/error.h"

namespace runahead {
AppendedFile::AppendedFile(const std::filesystem::path& path)
    : path_(path),
      file_(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, kNewFileMode)) {
  if (!file_) throw IoError(fmt::format("{}: cannot write: {}", path_.string(), WhyNotOpened(path, errno)));
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0) Refuse("cannot read", errno);
  if (!S_ISREG(info.st_mode)) {
    throw IoError(
        fmt::format("{}: cannot append: expected a regular file, which can be gone on with", path_.string()));
  }
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw IoError(fmt::format("{}: cannot append: another run writes it", path_.string()));
  }
  lines_end_ = info.st_size;
}

void AppendedFile::Refuse(std::string_view what, int reason) const {
  throw IoError(fmt::format("{}: {}: {}", path_.string(), what, std::strerror(reason)));
}

std::string AppendedFile::ReadLines(const std::function<void(std::string_view, int64_t)>& on_line) {
  constexpr size_t kBlock = size_t{1} << 16;
  std::string held;  // the begin of a line whose end was not read yet
  std::string block(kBlock, '\0');
  int64_t number = 0;
  off_t offset = 0;
  while (true) {
    const ssize_t got = ::pread(file_.get(), block.data(), block.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) Refuse("cannot read", errno);
    if (got == 0) break;
    offset += got;
    std::string_view rest(block.data(), static_cast<size_t>(got));
    for (size_t end = 0; (end = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(end + 1)) {
      held += rest.substr(0, end);
      on_line(held, ++number);
      held.clear();
    }
    held += rest;
  }
  lines_end_ = offset - static_cast<off_t>(held.size());
  return held;
}

void AppendedFile::Cut(off_t size) {
  while (::ftruncate(file_.get(), size) != 0) {
    if (errno != EINTR) Refuse("cannot cut", errno);
  }
}

void AppendedFile::CutTail() { Cut(lines_end_); }

void AppendedFile::Append(std::string_view line) {
  std::string whole(line);
  whole += '\n';
  if (const int reason = WriteAll(file_.get(), whole); reason != 0) {
    Cut(lines_end_);
    Refuse("cannot write", reason);
  }
  lines_end_ += static_cast<off_t>(whole.size());
}

}  // namespace runahead
