#include "tensor/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/host_memory.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// "13.48 GB", "3.2 MB", "999 bytes".
std::string Size(size_t bytes) {
  constexpr double kGiga = 1e9;
  constexpr double kMega = 1e6;
  const auto count = static_cast<double>(bytes);
  if (count >= kGiga) return fmt::format("{:.2f} GB", count / kGiga);
  if (count >= kMega) return fmt::format("{:.1f} MB", count / kMega);
  return fmt::format("{} bytes", bytes);
}

}  // namespace

void MemoryPlan::Add(std::string_view part, size_t bytes) {
  if (bytes == 0) return;
  const auto known =
      std::find_if(parts_.begin(), parts_.end(), [&](const auto& other) { return other.first == part; });
  if (known == parts_.end()) {
    parts_.emplace_back(part, bytes);
  } else {
    known->second += bytes;
  }
}

size_t MemoryPlan::bytes() const {
  size_t sum = 0;
  for (const auto& [part, bytes] : parts_) sum += bytes;
  return sum;
}

void MemoryPlan::CheckFits(std::string_view what, const Device& device) const {
  const size_t needed = bytes();
  if (needed == 0) return;
  const size_t free = device.FreeBytes();
  if (needed <= free) return;
  std::string list;
  for (const auto& [part, bytes] : parts_) {
    list += fmt::format("{}{} {}", list.empty() ? "" : ", ", part, Size(bytes));
  }
  const FreeMemory host = device.is_host() ? FreeHostMemory() : FreeMemory();
  const bool bounded = host.bytes < needed && !host.bound.empty() && host.bound != kMachine;
  throw ConfigError(fmt::format("{}: needs {} of memory ({}), {} has {} free{}", what, Size(needed), list,
                                device.name(), Size(free), bounded ? ", bounded by " + host.bound : ""));
}

}  // namespace runahead
