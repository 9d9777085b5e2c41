#include "base/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr std::string_view kPartialPrefix = ".runahead-";
constexpr std::string_view kPartialSuffix = ".partial";

std::string OwnLink(const Descriptor& file) { return fmt::format("/proc/self/fd/{}", file.get()); }

/// A name that no other file has: of this process, and counted.
std::string PartialName() {
  static std::atomic<int> count = 0;
  return fmt::format("{}{}-{}{}", kPartialPrefix, ::getpid(), ++count, kPartialSuffix);
}

std::filesystem::path FolderOf(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

/// Where `path` leads, also when nothing is there yet.
std::filesystem::path BehindLinks(std::filesystem::path path) {
  constexpr int kMostLinks = 40;
  for (int links = 0; links < kMostLinks; ++links) {
    std::error_code error;
    const std::filesystem::path target = std::filesystem::read_symlink(path, error);
    if (error) return path;
    path = target.is_absolute() ? target : FolderOf(path) / target;
  }
  return path;
}

/// `folder`, or where it does not exist the nearest above it that does.
std::filesystem::path NearestExisting(std::filesystem::path folder) {
  std::error_code error;
  while (!std::filesystem::exists(folder, error) && !folder.empty() && folder != folder.parent_path()) {
    folder = folder.parent_path();
  }
  return folder.empty() ? std::filesystem::path(".") : folder;
}

/// A file without a name, which vanishes with the process; nothing where the file system has none.
Descriptor OpenNameless(const std::filesystem::path& folder) {
  if (::access("/proc/self/fd", X_OK) != 0) return Descriptor();  // it gets its name through there
  return Descriptor(::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, kNewFileMode));
}

int SyncFolder(const std::filesystem::path& folder) {
  const Descriptor opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return opened && ::fsync(opened.get()) != 0 && errno != EINVAL ? errno : 0;
}

}  // namespace

OutputFile::OutputFile(const std::filesystem::path& path, Folders folders)
    : path_(path), target_(BehindLinks(path)), folders_(folders) {
  if (path_.empty()) return;
  if (const std::optional<int> own = DescriptorNamedBy(path_)) {
    OpenStream(*own);
    return;
  }
  struct stat info {};
  const bool exists = ::stat(path_.c_str(), &info) == 0;
  if (!exists && errno != ENOENT) {
    if (errno == ENOTDIR) Refuse(fmt::format("{} is not a folder", NearestExisting(FolderOf(path_)).string()));
    Refuse(std::strerror(errno));
  }
  if (exists && S_ISDIR(info.st_mode)) Refuse("it is a folder");
  if (exists && !S_ISREG(info.st_mode)) {
    OpenStream(-1);
    return;
  }
  if (exists) CheckReplaceable();
  const std::filesystem::path folder = FolderOf(target_);
  const std::filesystem::path nearest = NearestExisting(folder);
  std::error_code error;
  if (!std::filesystem::is_directory(nearest, error)) Refuse(fmt::format("{} is not a folder", nearest.string()));
  if (folders_ == Folders::kMustExist && !std::filesystem::is_directory(folder, error)) {
    Refuse("its folder does not exist");
  }
  if (target_.filename().empty() || target_.filename() == "." || target_.filename() == "..")
    Refuse("it names no file");
  OpenBeside(nearest);
  Reserve();
  // A file with a name would stay behind if the process were killed meanwhile; one of another folder may be of
  // another file system.
  if (!beside_.empty() || nearest != folder) Drop();
}

OutputFile::~OutputFile() { Drop(); }

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      beside_(std::move(other.beside_)),
      file_(std::move(other.file_)),
      appended_(other.appended_),
      streams_(other.streams_),
      folders_(other.folders_) {
  other.path_.clear();
  other.beside_.clear();
}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(target_, other.target_);
  std::swap(beside_, other.beside_);
  std::swap(file_, other.file_);
  std::swap(appended_, other.appended_);
  std::swap(streams_, other.streams_);
  std::swap(folders_, other.folders_);
  return *this;
}

void OutputFile::Refuse(std::string_view reason) const {
  throw IoError(fmt::format("{}: cannot write: {}", path_.string(), reason));
}

/// `own_descriptor`: of this process, or -1 to open the path.
void OutputFile::OpenStream(int own_descriptor) {
  constexpr auto kPatience = std::chrono::seconds(10);  // for somebody to read a named pipe
  constexpr auto kPause = std::chrono::milliseconds(20);
  streams_ = true;
  if (own_descriptor >= 0) {
    const int flags = ::fcntl(own_descriptor, F_GETFL);
    if (flags >= 0 && (flags & O_ACCMODE) == O_RDONLY) Refuse("it is open for reading only");
    file_ = Descriptor(::fcntl(own_descriptor, F_DUPFD_CLOEXEC, 0));
  } else {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (true) {
      file_ = Descriptor(::open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
      if (file_ || errno != ENXIO || std::chrono::steady_clock::now() > deadline) break;
      std::this_thread::sleep_for(kPause);
    }
    if (!file_ && errno == ENXIO) Refuse("nobody reads this pipe");
  }
  if (!file_) Refuse(std::strerror(errno));
}

/// Refuses a file that another cannot take the place of, though it may be open to writing.
void OutputFile::CheckReplaceable() const {
  if (::access(target_.c_str(), W_OK) != 0) Refuse(std::strerror(errno));
  // Who may not remove it, because of a sticky folder or an attribute, is told so before it is found to be no folder.
  if (::rmdir(target_.c_str()) != 0 && errno != ENOTDIR) Refuse(std::strerror(errno));
  struct statx info {};
  const bool known = ::statx(AT_FDCWD, target_.c_str(), 0, STATX_INO, &info) == 0;
  if (known && (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0) {
    Refuse("it is mounted by itself, so no other file can take its place");
  }
}

void OutputFile::OpenBeside(const std::filesystem::path& folder) {
  appended_ = 0;
  beside_.clear();
  file_ = OpenNameless(folder);
  if (file_) return;
  std::filesystem::path beside = folder / PartialName();
  file_ = Descriptor(::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kNewFileMode));
  if (!file_) Refuse(std::strerror(errno));
  beside_ = std::move(beside);
}

/// Takes a little room now, so that a full disk is refused before the work and not after it.
void OutputFile::Reserve() {
  constexpr off_t kRoom = 1 << 16;
  if (::fallocate(file_.get(), 0, 0, kRoom) == 0 || (errno != ENOSPC && errno != EDQUOT)) return;
  const int reason = errno;
  Drop();
  Refuse(std::strerror(reason));
}

/// What was not committed is gone.
void OutputFile::Drop() {
  if (!streams_) file_.Close();
  if (!beside_.empty()) ::unlink(beside_.c_str());
  beside_.clear();
}

void OutputFile::MakeFolders() {
  if (folders_ != Folders::kMake) return;
  std::error_code error;
  std::filesystem::create_directories(FolderOf(target_), error);
  if (error) Refuse(fmt::format("cannot make its folder: {}", error.message()));
}

void OutputFile::Append(std::string_view part) {
  if (!file_) {
    MakeFolders();
    OpenBeside(FolderOf(target_));
  }
  if (const int reason = WriteAll(file_.get(), part); reason != 0) {
    Drop();
    Refuse(std::strerror(reason));
  }
  appended_ += part.size();
}

void OutputFile::Commit() {
  if (streams_) return;
  struct stat old {};
  const bool replaces = ::stat(target_.c_str(), &old) == 0;
  const bool complete = ::ftruncate(file_.get(), static_cast<off_t>(appended_)) == 0 &&
                        (!replaces || ::fchmod(file_.get(), old.st_mode & 07777) == 0 || errno == EPERM) &&
                        (::fsync(file_.get()) == 0 || errno == EINVAL);
  if (!complete) {
    const int reason = errno;
    Drop();
    Refuse(std::strerror(reason));
  }
  TakeName();
  file_.Close();
  if (const int reason = SyncFolder(FolderOf(target_)); reason != 0) Refuse(std::strerror(reason));
}

void OutputFile::TakeName() {
  if (beside_.empty()) {
    const std::string nameless = OwnLink(file_);
    if (::linkat(AT_FDCWD, nameless.c_str(), AT_FDCWD, target_.c_str(), AT_SYMLINK_FOLLOW) == 0) return;
    beside_ = FolderOf(target_) / PartialName();
    if (::linkat(AT_FDCWD, nameless.c_str(), AT_FDCWD, beside_.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      const int reason = errno;
      beside_.clear();
      Drop();
      Refuse(std::strerror(reason));
    }
  }
  if (::rename(beside_.c_str(), target_.c_str()) != 0) {
    const int reason = errno;
    Drop();
    Refuse(std::strerror(reason));
  }
  beside_.clear();
}

void OutputFile::Write(std::string_view content) {
  Append(content);
  Commit();
}

bool IsPartialFile(std::string_view name) {
  return name.starts_with(kPartialPrefix) && name.ends_with(kPartialSuffix);
}

}  // namespace runahead
