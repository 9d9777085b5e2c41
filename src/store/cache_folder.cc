#include "store/cache_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <numeric>
#include <optional>

#include "base/descriptor.h"
#include "base/file.h"
#include "base/output_file.h"
#include "runahead/error.h"
#include "store/page_file.h"

namespace runahead {
namespace {

constexpr std::string_view kPages = "kv-pages-1";  // the folder of all models, of this version of the files
constexpr std::string_view kSuffix = ".page";
constexpr size_t kIdDigits = 32;     // of a model's root
constexpr size_t kFolderDigits = 2;  // of a page's key: pages are spread over 256 folders
constexpr int64_t kSecond = 1'000'000'000;

int64_t NanosecondsOf(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

/// Calls `on_entry` with the path and the name of all that is in `folder`, which may go meanwhile.
template <typename OnEntry>
void ForEach(const std::filesystem::path& folder, OnEntry&& on_entry) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    on_entry(it->path(), it->path().filename().string());
  }
}

bool IsHex(std::string_view text, size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// Removes a file that whoever wrote it cannot be still at work on.
void RemoveLeftOver(const std::filesystem::path& path) {
  constexpr int64_t kOld = 600 * kSecond;
  struct stat info {};
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (::lstat(path.c_str(), &info) != 0 || NanosecondsOf(now) - NanosecondsOf(info.st_mtim) < kOld) return;
  (void)::unlink(path.c_str());
}

std::optional<StoredPage> PageAt(const std::filesystem::path& path, std::string_view name) {
  if (!name.ends_with(kSuffix)) return std::nullopt;
  const std::optional<PageKey> key = PageKey::Parse(name.substr(0, name.size() - kSuffix.size()));
  struct stat info {};
  if (!key || ::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return StoredPage{path, *key, static_cast<size_t>(info.st_size), NanosecondsOf(info.st_mtim)};
}

/// The first line of a file that anybody may have written, without signs that change a terminal.
std::string FirstLine(const std::filesystem::path& path) {
  constexpr size_t kMost = 200;
  std::string text;
  try {
    text = ReadFile(path);
  } catch (const IoError&) {
    return "";
  }
  text = text.substr(0, std::min(text.find('\n'), kMost));
  std::erase_if(text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; });
  return text;
}

StoredPages ReadModel(const std::filesystem::path& folder) {
  StoredPages model;
  model.id = folder.filename().string();
  model.about = FirstLine(AboutFile(folder));
  ForEach(folder, [&](const std::filesystem::path& part, const std::string& name) {
    if (IsPartialFile(name)) RemoveLeftOver(part);
    if (!IsHex(name, kFolderDigits)) return;
    ForEach(part, [&](const std::filesystem::path& path, const std::string& file) {
      if (IsPartialFile(file)) return RemoveLeftOver(path);
      if (std::optional<StoredPage> page = PageAt(path, file)) model.pages.push_back(*std::move(page));
    });
  });
  return model;
}

}  // namespace

size_t StoredPages::bytes() const {
  return std::accumulate(pages.begin(), pages.end(), size_t{0},
                         [](size_t sum, const StoredPage& page) { return sum + page.bytes; });
}

int64_t StoredPages::used_ns() const {
  int64_t last = 0;
  for (const StoredPage& page : pages) last = std::max(last, page.used_ns);
  return last;
}

std::filesystem::path PagesFolder(const std::filesystem::path& folder, const PageKey& root) {
  return folder / kPages / root.Hex().substr(0, kIdDigits);
}

std::string PageName(const PageKey& key) {
  const std::string hex = key.Hex();
  return fmt::format("{}/{}{}", hex.substr(0, kFolderDigits), hex, kSuffix);
}

std::filesystem::path AboutFile(const std::filesystem::path& pages_folder) { return pages_folder / "about"; }

std::vector<StoredPages> ReadCacheFolder(const std::filesystem::path& folder) {
  std::error_code error;
  (void)std::filesystem::directory_iterator(folder, error);
  if (error) throw IoError(fmt::format("{}: cannot read: {}", folder.string(), error.message()));
  std::vector<StoredPages> models;
  ForEach(folder / kPages, [&](const std::filesystem::path& path, const std::string& name) {
    if (IsHex(name, kIdDigits)) models.push_back(ReadModel(path));
  });
  std::sort(models.begin(), models.end(), [](const StoredPages& a, const StoredPages& b) { return a.id < b.id; });
  return models;
}

int64_t DropOldest(const std::filesystem::path& folder, size_t limit) {
  const std::filesystem::path lock = folder / kPages / "lock";
  const Descriptor locked(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!locked || ::flock(locked.get(), LOCK_EX | LOCK_NB) != 0) return 0;
  std::vector<StoredPage> pages;
  size_t bytes = 0;
  for (StoredPages& model : ReadCacheFolder(folder)) {
    bytes += model.bytes();
    std::move(model.pages.begin(), model.pages.end(), std::back_inserter(pages));
  }
  if (bytes <= limit) return 0;
  std::sort(pages.begin(), pages.end(),
            [](const StoredPage& a, const StoredPage& b) { return a.used_ns < b.used_ns; });
  int64_t dropped = 0;
  for (const StoredPage& page : pages) {
    if (bytes <= limit) break;
    if (::unlink(page.path.c_str()) != 0 && errno != ENOENT) continue;
    bytes -= page.bytes;
    ++dropped;
  }
  return dropped;
}

std::vector<DamagedPage> VerifyPages(const std::vector<StoredPages>& models,
                                     const std::function<void(size_t)>& on_page) {
  std::vector<DamagedPage> damaged;
  for (const StoredPages& model : models) {
    for (const StoredPage& page : model.pages) {
      on_page(page.bytes);
      try {
        const Status status = CheckPageFile(ReadFile(page.path), page.key);
        if (status.ok()) continue;
        damaged.push_back({page.path, status.message()});
        (void)::unlink(page.path.c_str());
      } catch (const IoError& error) {
        // What another process gave up meanwhile is not damaged.
        if (::access(page.path.c_str(), F_OK) == 0) damaged.push_back({page.path, error.what()});
      }
    }
  }
  return damaged;
}

void DropPages(const std::filesystem::path& folder, const std::vector<StoredPages>& models) {
  for (const StoredPages& model : models) {
    const std::filesystem::path path = folder / kPages / model.id;
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) throw IoError(fmt::format("{}: cannot remove: {}", path.string(), error.message()));
  }
}

}  // namespace runahead
