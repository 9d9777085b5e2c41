#include "base/descriptor.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

namespace runahead {
namespace {

/// Until the other side of a pipe reads or writes, or is gone.
void WaitFor(int fd, short events) {
  pollfd waits{fd, events, 0};
  (void)::poll(&waits, 1, /*timeout=*/-1);
}

/// The number of an entry of /proc/self/fd.
std::optional<int> EntryOfDescriptors(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  int number = 0;
  const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (name.empty() || wrong != std::errc() || end != name.data() + name.size()) return std::nullopt;
  std::error_code error;
  const std::filesystem::path own = std::filesystem::canonical("/proc/self/fd", error);
  if (error) return std::nullopt;
  const std::filesystem::path folder = std::filesystem::canonical(path.parent_path(), error);
  if (error || folder != own) return std::nullopt;
  return number;
}

}  // namespace

void Descriptor::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

int WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      WaitFor(fd, POLLOUT);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

ssize_t ReadSome(int fd, std::span<char> buffer) {
  while (true) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got >= 0) return got;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      WaitFor(fd, POLLIN);
    } else if (errno != EINTR) {
      return -errno;
    }
  }
}

std::optional<int> DescriptorNamedBy(const std::filesystem::path& path) {
  constexpr int kMostLinks = 40;
  std::filesystem::path here = path;
  for (int links = 0; links < kMostLinks; ++links) {
    if (const std::optional<int> number = EntryOfDescriptors(here)) return number;
    std::error_code error;
    const std::filesystem::path target = std::filesystem::read_symlink(here, error);
    if (error) return std::nullopt;
    here = target.is_absolute() ? target : here.parent_path() / target;
  }
  return std::nullopt;
}

}  // namespace runahead
