// Where `runahead tune` leaves what it measured.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "plan/cost_profile.h"
#include "plan/partition_table.h"

namespace runahead {

/// What is known of one engine's model and devices.
struct Tuned {
  std::optional<CostProfile> profile;
  std::optional<PartitionTable> table;
  std::string refused;  // reason why a file that exists is not used; empty: none
};

/// `asked`, or runahead in the user's cache folder: $XDG_CACHE_HOME, or .cache in $HOME. Throws ConfigError when
/// neither is set.
std::filesystem::path TunedFolder(const std::string& asked);

std::filesystem::path ProfilePath(const std::filesystem::path& folder, const ProfileKey& key);
std::filesystem::path TablePath(const std::filesystem::path& folder, const ProfileKey& key);

/// Reads what is there for `key`; nothing where nothing was measured for its model. Throws IoError or ConfigError for
/// a file that cannot be used, and ConfigError when all there is was measured on other devices.
std::optional<CostProfile> LoadProfile(const std::filesystem::path& folder, const ProfileKey& key);
std::optional<PartitionTable> LoadTable(const std::filesystem::path& folder, const ProfileKey& key);

/// Both, where a file that cannot be used is left out and named in `refused`: a prompt needs no measurements. Links
/// with limits have tables of their own, but need no profile of their own.
Tuned LoadTuned(const std::string& asked, const ProfileKey& key, const ProfileKey& table_key);

}  // namespace runahead
