// What is about to be allocated on a device, added up before any of it is.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/device.h"

namespace runahead {

/// Bytes of each part of some work on one device. Not thread-safe.
class MemoryPlan {
 public:
  /// Parts of the same name are added up; one of no bytes is left out.
  void Add(std::string_view part, size_t bytes);

  [[nodiscard]] size_t bytes() const;
  /// Throws ConfigError when `device` has less memory free: it names `what` needs it, the sum, each part, and the
  /// device with what it has.
  void CheckFits(std::string_view what, const Device& device) const;

 private:
  std::vector<std::pair<std::string, size_t>> parts_;  // name and bytes, in the order of their first Add
};

}  // namespace runahead
