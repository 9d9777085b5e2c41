#include "base/host_memory.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

namespace runahead {
namespace {

namespace fs = std::filesystem;

constexpr size_t kKibi = 1024;

/// The number that a file holds; nothing where it is missing or says "max".
std::optional<size_t> NumberIn(const fs::path& path) {
  std::ifstream file(path);
  size_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

/// The number behind `name` in a file of lines "name number ..."; 0 where there is none.
size_t FieldOf(const fs::path& path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string first;
    size_t number = 0;
    if (words >> first >> number && first == name) return number;
  }
  return 0;
}

size_t Less(size_t from, size_t taken) { return from > taken ? from - taken : 0; }

/// The names of the files of one version of memory cgroups.
struct Files {
  const char* limit;
  const char* used;
  std::vector<std::string_view> cache;  // fields of memory.stat that the kernel gives back under pressure
};

/// Lowers `free` to what the cgroup in `folder` leaves.
void BoundBy(const fs::path& folder, const std::string& name, const Files& files, FreeMemory& free) {
  const std::optional<size_t> limit = NumberIn(folder / files.limit);
  const std::optional<size_t> used = NumberIn(folder / files.used);
  if (!limit || !used) return;
  size_t cache = 0;
  for (const std::string_view field : files.cache) cache += FieldOf(folder / "memory.stat", field);
  const size_t left = Less(*limit, Less(*used, cache));
  if (left < free.bytes) free = {left, "the memory cgroup " + name};
}

/// Where a hierarchy of cgroups is mounted, and which of its folders that shows.
struct Mount {
  fs::path point;
  fs::path shows;
};

/// Of `version` 1 (with the memory controller) or 2, by /proc/self/mountinfo.
std::optional<Mount> MountOf(int version, const fs::path& root) {
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string skipped;
    std::string shows;
    std::string point;
    words >> skipped >> skipped >> skipped >> shows >> point;
    while (words >> skipped && skipped != "-") continue;
    std::string type;
    std::string options;
    words >> type >> skipped >> options;
    const bool has_memory = fmt::format(",{},", options).find(",memory,") != std::string::npos;
    if (version == 2 ? type == "cgroup2" : type == "cgroup" && has_memory) return Mount{point, shows};
  }
  return std::nullopt;
}

/// The path of this process's cgroup in its hierarchy, by /proc/self/cgroup.
std::optional<fs::path> GroupOf(int version, const fs::path& root) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    if (version == 2 ? controllers == ",," : controllers.find(",memory,") != std::string::npos) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

/// The group's own limit and those of all above it that can be seen. In a container the group's path may be the
/// host's, of which only the last folder is mounted.
void BoundByGroups(int version, const Files& files, const fs::path& root, FreeMemory& free) {
  const std::optional<Mount> mount = MountOf(version, root);
  const std::optional<fs::path> group = GroupOf(version, root);
  if (!mount || !group) return;
  const fs::path top = root / mount->point.relative_path();
  const fs::path below = mount->shows == "/" ? *group : group->lexically_relative(mount->shows);
  BoundBy(top, group->string(), files, free);
  for (fs::path here = below.relative_path(); !here.empty() && here != "."; here = here.parent_path()) {
    if (!here.string().starts_with("..")) BoundBy(top / here, group->string(), files, free);
  }
}

void BoundByLimit(int resource, const char* name, const fs::path& root, const char* used_field, FreeMemory& free) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const size_t left = Less(limit.rlim_cur, FieldOf(root / "proc/self/status", used_field) * kKibi);
  if (left < free.bytes) free = {left, name};
}

}  // namespace

FreeMemory FreeHostMemory(const fs::path& root) {
  const size_t available = FieldOf(root / "proc/meminfo", "MemAvailable:") * kKibi;
  const size_t all = static_cast<size_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(::sysconf(_SC_PAGE_SIZE));
  FreeMemory free{available > 0 ? available : all, kMachine};
  BoundByGroups(1, {"memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}},
                root, free);
  BoundByGroups(2, {"memory.max", "memory.current", {"inactive_file", "active_file"}}, root, free);
  BoundByLimit(RLIMIT_AS, "the limit on address space (ulimit -v)", root, "VmSize:", free);
  BoundByLimit(RLIMIT_DATA, "the limit on data (ulimit -d)", root, "VmData:", free);
  return free;
}

}  // namespace runahead
