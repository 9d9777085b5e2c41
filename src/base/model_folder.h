// What is in the place where a model's folder should be.
#pragma once

#include <filesystem>
#include <string_view>

namespace runahead {

/// Whether these bytes of a file are what Git puts in its place where Git LFS did not fetch it.
inline bool IsLfsPointer(std::string_view bytes) {
  return bytes.starts_with("version https://git-lfs.github.com/spec/");
}
inline constexpr const char* kLfsPointerReason =
    "is a Git-LFS pointer, not the file itself; `git lfs pull` in its folder fetches it";

/// Throws IoError that says what `dir` is when it is no folder (nothing, a name on the hub, a file, a dangling link),
/// or one without `file` (the root of a hub cache entry, a dangling link in its place); an empty `file` asks for
/// nothing.
void CheckModelFolder(const std::filesystem::path& dir, std::string_view file = "config.json");

}  // namespace runahead
