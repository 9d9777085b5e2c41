// What is in the place where a model's folder should be.
#pragma once

#include <filesystem>
#include <string_view>

namespace runahead {

/// Throws IoError that says what `dir` is when it is no folder (nothing, a name on the hub, a file, a dangling link),
/// or one without `file` (the root of a hub cache entry, a dangling link in its place); an empty `file` asks for
/// nothing.
void CheckModelFolder(const std::filesystem::path& dir, std::string_view file = "config.json");

}  // namespace runahead
