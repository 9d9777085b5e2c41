#include "store/page_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "base/check.h"
#include "base/descriptor.h"
#include "base/output_file.h"
#include "runahead/error.h"
#include "store/cache_folder.h"
#include "store/page_file.h"

namespace runahead {
namespace {

constexpr size_t kReserve = 16;  // one part of so many of the limit is room for what is written between two looks

/// Fills `bytes`; false at the file's end, and where the disk fails.
bool ReadAll(int fd, std::span<char> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ReadSome(fd, bytes);
    if (got <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return true;
}

std::span<char> Chars(std::span<std::byte> bytes) { return {reinterpret_cast<char*>(bytes.data()), bytes.size()}; }

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Whether the file holds the rows of this page, which are then in `rows`.
bool ReadPage(int fd, const PageKey& key, std::span<const int32_t> tokens, std::span<std::byte> rows) {
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return false;
  if (static_cast<size_t>(info.st_size) != kPageHeadBytes + rows.size()) return false;
  std::array<char, kPageHeadBytes> bytes{};
  PageHead head;
  if (!ReadAll(fd, bytes) || !Decode({bytes.data(), bytes.size()}, head).ok()) return false;
  if (head.key != key || head.row_bytes != rows.size()) return false;
  if (!std::equal(tokens.begin(), tokens.end(), head.tokens.begin(), head.tokens.end())) return false;
  return ReadAll(fd, Chars(rows)) && SumOf(rows) == head.sum;
}

}  // namespace

PageStore::PageStore(const std::filesystem::path& folder, size_t limit, const StoredModel& model, size_t row_bytes)
    : folder_(folder),
      pages_(PagesFolder(folder, model.root)),
      limit_(limit),
      row_bytes_(row_bytes),
      written_(limit) {  // the folder is read once in any case
  if (most_pages() == 0) {
    throw ConfigError(fmt::format("cache size: {} bytes hold no page of {} tokens, which takes {} bytes", limit,
                                  kPageRows, row_bytes + kPageHeadBytes));
  }
  const std::filesystem::path about = AboutFile(pages_);
  std::error_code error;
  std::filesystem::create_directories(pages_, error);
  if (error) throw IoError(fmt::format("{}: cannot be made: {}", pages_.string(), error.message()));
  // Prompts are in there. Where it is another user's, that one decided who may see them.
  std::filesystem::permissions(pages_, std::filesystem::perms::owner_all, error);
  if (!std::filesystem::exists(about, error) && ::access(pages_.c_str(), W_OK) == 0) {
    OutputFile(about).Write(model.about + "\n");
  }
}

int64_t PageStore::most_pages() const {
  return static_cast<int64_t>((limit_ - limit_ / kReserve) / (row_bytes_ + kPageHeadBytes));
}

std::string PageStore::PathOf(const PageKey& key) const {
  return fmt::format("{}/{}", pages_.c_str(), PageName(key));
}

int64_t PageStore::Count(std::span<const PageKey> keys) const {
  const auto there = [this](const PageKey& key) { return ::access(PathOf(key).c_str(), F_OK) == 0; };
  return std::find_if_not(keys.begin(), keys.end(), there) - keys.begin();
}

bool PageStore::Read(const PageKey& key, std::span<const int32_t> tokens, std::span<std::byte> rows) const {
  CHECK_EQ(rows.size(), row_bytes_);
  const std::string path = PathOf(key);
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return false;
  if (ReadPage(file.get(), key, tokens, rows)) return true;
  (void)::unlink(path.c_str());  // so that it is written anew
  return false;
}

void PageStore::Touch(std::span<const PageKey> keys) const {
  constexpr std::chrono::microseconds kApart(1);
  auto time = std::chrono::system_clock::now().time_since_epoch();
  for (const PageKey& key : keys) {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
    timespec used{};
    used.tv_sec = seconds.count();
    used.tv_nsec = std::chrono::nanoseconds(time - seconds).count();
    const std::array<timespec, 2> times = {used, used};
    (void)::utimensat(AT_FDCWD, PathOf(key).c_str(), times.data(), AT_SYMLINK_NOFOLLOW);
    time -= kApart;
  }
}

Status PageStore::Write(const PageKey& key, std::span<const int32_t> tokens, std::span<const std::byte> rows) {
  CHECK_EQ(rows.size(), row_bytes_);
  CHECK_EQ(std::ssize(tokens), kPageRows);
  PageHead head;
  head.key = key;
  std::copy(tokens.begin(), tokens.end(), head.tokens.begin());
  head.row_bytes = rows.size();
  head.sum = SumOf(rows);
  try {
    OutputFile file(PathOf(key), Folders::kMake);
    file.Append(Encode(head));
    file.Append(Text(rows));
    file.Commit();
  } catch (const IoError& error) {
    return Status::Failed(error.what());
  }
  written_ += kPageHeadBytes + rows.size();
  return Status::Ok();
}

void PageStore::MakeRoom() {
  if (written_ < limit_ / kReserve) return;
  written_ = 0;
  DropOldest(folder_, limit_ - limit_ / kReserve);
}

}  // namespace runahead
