// Files that a command leaves behind: each is there whole, or as it was before.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/appended_file.h"
#include "base/descriptor.h"

namespace runahead {

enum class Folders : uint8_t { kMustExist, kMake };

/// A file to be written when the work is done. Its place is tried out when this is made, so that what cannot be
/// written is refused before the work. Content goes into a file beside, which is synced and then takes the name:
/// until then nothing of it is seen, and an old file stays as it is. A pipe, a device and what the shell redirected
/// (/dev/stdout) are written straight. Move-only.
class OutputFile {
 public:
  OutputFile() = default;  // none
  /// An empty path is no file. `folders`: whether missing ones are made when the file is written. Throws IoError
  /// naming a path that cannot be written, and the reason.
  explicit OutputFile(const std::filesystem::path& path, Folders folders = Folders::kMustExist);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  explicit operator bool() const { return !path_.empty(); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Whether what is written cannot be replaced later: a pipe, a device.
  [[nodiscard]] bool streams() const { return streams_; }

  /// All of the content; a later call replaces it. Throws IoError naming the path and the reason, as do the others.
  void Write(std::string_view content);

  // The same in parts: what was appended appears at Commit.
  void Append(std::string_view part);
  void Commit();

 private:
  void OpenStream(int own_descriptor);
  void CheckReplaceable() const;
  void OpenBeside(const std::filesystem::path& folder);
  void Reserve();
  void TakeName();
  void MakeFolders();
  void Drop();
  [[noreturn]] void Refuse(std::string_view reason) const;

  std::filesystem::path path_;    // as it was asked for
  std::filesystem::path target_;  // behind links
  std::filesystem::path beside_;  // its name until it is complete; empty: none
  Descriptor file_;               // what Append writes; none: opened by the next Append
  uint64_t appended_ = 0;         // bytes
  bool streams_ = false;
  Folders folders_ = Folders::kMustExist;
};

/// Whether `name` is one that OutputFile uses for a file that is not complete.
bool IsPartialFile(std::string_view name);

/// The outputs of one command: no two are the same file, by whatever path, and none is what the command reads.
class OutputFiles {
 public:
  /// Outputs may not replace `input`: a file, or what a model's folder and one of measurements hold.
  void Protect(const std::filesystem::path& input);

  /// An empty path is no file. Throws ConfigError naming `flag` and the path for one that is taken, and what
  /// OutputFile throws.
  OutputFile Open(std::string_view flag, const std::filesystem::path& path, Folders folders = Folders::kMustExist);
  /// The same for a file that grows.
  AppendedFile OpenToAppend(std::string_view flag, const std::filesystem::path& path);

 private:
  /// Device and inode of a file, or those of its folder and its name where it does not exist.
  using Identity = std::tuple<dev_t, ino_t, std::string>;
  struct Taken {
    Identity identity;
    std::string by;  // "--json", "an input"
  };

  static std::vector<Identity> IdentitiesOf(const std::filesystem::path& path);
  void Take(const std::filesystem::path& path, const std::string& by);
  /// Throws ConfigError where one of `identities`, those of `path`, is taken.
  void CheckFree(std::string_view flag, const std::filesystem::path& path,
                 const std::vector<Identity>& identities) const;

  std::vector<Taken> taken_;
};

}  // namespace runahead
