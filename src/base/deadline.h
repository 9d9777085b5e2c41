// A moment by which a wait must end.
#pragma once

#include <chrono>

namespace runahead {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

inline Deadline After(std::chrono::duration<double> wait) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(wait);
}

}  // namespace runahead
