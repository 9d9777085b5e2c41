// How much memory this process may still take, and what bounds it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace runahead {

/// What bounds it where nothing less does.
inline constexpr const char* kMachine = "the machine";

struct FreeMemory {
  size_t bytes = 0;
  std::string
      bound;  // what bounds it: "the machine", "the memory cgroup /a/b", "the limit on address space (ulimit -v)"
};

/// The least of: what the kernel calls available, what the memory cgroups of this process (versions 1 and 2, and all
/// above them) have left, with their page cache counted as free, and what RLIMIT_AS and RLIMIT_DATA leave. `root` is
/// where /proc and /sys are looked for.
FreeMemory FreeHostMemory(const std::filesystem::path& root = "/");

}  // namespace runahead
