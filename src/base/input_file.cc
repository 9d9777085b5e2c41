#include "base/input_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <stdexcept>

#include "base/deadline.h"
#include "base/file.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr auto kPatience = std::chrono::seconds(10);  // for the first writer of a named pipe

Descriptor OpenInput(const std::string& path) {
  const std::optional<int> own = path == "-" ? STDIN_FILENO : DescriptorNamedBy(path);
  if (own) return Descriptor(::fcntl(*own, F_DUPFD_CLOEXEC, 0));
  return Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
}

}  // namespace

InputFile::InputFile(const std::string& path) : name_(path == "-" ? "stdin" : path), file_(OpenInput(path)) {
  if (!file_) throw IoError(fmt::format("{}: cannot open: {}", name_, WhyNotOpened(path, errno)));
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0) {
    throw IoError(fmt::format("{}: cannot read: {}", name_, std::strerror(errno)));
  }
  if (S_ISDIR(info.st_mode)) throw IoError(fmt::format("{}: is a folder, expected a file", name_));
  if (S_ISREG(info.st_mode)) size_ = static_cast<size_t>(info.st_size);
  awaits_writer_ = S_ISFIFO(info.st_mode) && path != "-" && !DescriptorNamedBy(path);
}

size_t InputFile::Read(std::span<char> buffer) {
  constexpr int kLookMs = 20;
  const Deadline deadline = After(kPatience);
  while (true) {
    // A named pipe that has no writer yet gives nothing at once, as does one whose writer has left; only the second
    // hangs up.
    const ssize_t got =
        awaits_writer_ ? ::read(file_.get(), buffer.data(), buffer.size()) : ReadSome(file_.get(), buffer);
    if (got == 0 && awaits_writer_) {
      pollfd waits{file_.get(), POLLIN, 0};
      const bool left = ::poll(&waits, 1, kLookMs) > 0 && (waits.revents & POLLIN) == 0;
      if (left) return 0;
      if (Clock::now() > deadline) throw IoError(fmt::format("{}: nobody writes into this pipe", name_));
      continue;
    }
    if (got >= 0) {
      awaits_writer_ = false;
      return static_cast<size_t>(got);
    }
    if (awaits_writer_) {  // it has a writer, or the next read tells the reason
      awaits_writer_ = false;
      continue;
    }
    throw IoError(fmt::format("{}: cannot read: {}", name_, std::strerror(static_cast<int>(-got))));
  }
}

std::string ReadInput(const std::string& path) {
  constexpr size_t kBlock = size_t{1} << 16;
  InputFile input(path);
  std::string content;
  try {
    content.reserve(input.size());
    for (size_t filled = 0;;) {
      if (content.size() < filled + kBlock) content.resize(std::max(2 * filled, filled + kBlock));
      const size_t got = input.Read(std::span(content).subspan(filled));
      filled += got;
      if (got == 0) {
        content.resize(filled);
        return content;
      }
      if (input.size() == 0 && filled > kLargestInput) {
        throw IoError(fmt::format("{}: more than {} bytes came, and no end", input.name(), kLargestInput));
      }
    }
  } catch (const std::bad_alloc&) {
    throw IoError(fmt::format("{}: its {} bytes do not fit into memory", input.name(), input.size()));
  } catch (const std::length_error&) {
    throw IoError(fmt::format("{}: its {} bytes do not fit into memory", input.name(), input.size()));
  }
}

}  // namespace runahead
