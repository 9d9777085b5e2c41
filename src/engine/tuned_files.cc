#include "engine/tuned_files.h"

#include <fmt/format.h>

#include <cstdlib>
#include <system_error>

#include "base/file.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr const char* kProfile = "profile-";
constexpr const char* kTable = "partitions-";

/// The file that was measured for `key`, or one for the same model on other devices, whose refusal tells what is
/// missing; nothing where there is neither.
std::optional<std::filesystem::path> FindFile(const std::filesystem::path& folder, const char* kind,
                                              const ProfileKey& key) {
  std::error_code error;
  std::filesystem::path own = folder / fmt::format("{}{}.json", kind, key.FileStem());
  if (std::filesystem::exists(own, error)) return own;
  std::optional<std::filesystem::path> relative;  // the first by name
  const std::string family = kind + key.FamilyStem();
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::filesystem::path& path = entry.path();
    if (path.filename().string().starts_with(family) && (!relative || path < *relative)) relative = path;
  }
  return relative;
}

}  // namespace

std::filesystem::path TunedFolder(const std::string& asked) {
  if (!asked.empty()) return asked;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    return std::filesystem::path(cache) / "runahead";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return std::filesystem::path(home) / ".cache" / "runahead";
  }
  throw ConfigError("the user's cache folder is not known: neither XDG_CACHE_HOME nor HOME is set");
}

std::filesystem::path ProfilePath(const std::filesystem::path& folder, const ProfileKey& key) {
  return folder / fmt::format("{}{}.json", kProfile, key.FileStem());
}

std::filesystem::path TablePath(const std::filesystem::path& folder, const ProfileKey& key) {
  return folder / fmt::format("{}{}.json", kTable, key.FileStem());
}

std::optional<CostProfile> LoadProfile(const std::filesystem::path& folder, const ProfileKey& key) {
  const std::optional<std::filesystem::path> path = FindFile(folder, kProfile, key);
  if (!path) return std::nullopt;
  CostProfile profile = ParseCostProfile(ReadFile(*path), path->string());
  profile.key.CheckFits(key, path->string());
  return profile;
}

std::optional<PartitionTable> LoadTable(const std::filesystem::path& folder, const ProfileKey& key) {
  const std::optional<std::filesystem::path> path = FindFile(folder, kTable, key);
  if (!path) return std::nullopt;
  PartitionTable table = ParsePartitionTable(ReadFile(*path), path->string());
  table.key.CheckFits(key, path->string());
  return table;
}

Tuned LoadTuned(const std::string& asked, const ProfileKey& key, const ProfileKey& table_key) {
  Tuned tuned;
  const auto keep = [&](const Error& error) {
    tuned.refused += (tuned.refused.empty() ? "" : "; ") + std::string(error.what());
  };
  std::filesystem::path folder;
  try {
    folder = TunedFolder(asked);
  } catch (const ConfigError&) {
    return tuned;  // no cache folder, nothing in it
  }
  try {
    tuned.profile = LoadProfile(folder, key);
  } catch (const Error& error) {
    keep(error);
  }
  try {
    tuned.table = LoadTable(folder, table_key);
  } catch (const Error& error) {
    keep(error);
  }
  return tuned;
}

}  // namespace runahead
