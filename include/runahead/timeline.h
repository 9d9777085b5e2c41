// What each rank did when, during one prompt phase.
#pragma once

#include <cstddef>
#include <string_view>

#include "runahead/export.h"

namespace runahead {

enum class Activity : unsigned char { kCompute, kWait, kSend, kReceive };

/// Throws ConfigError for a number that the enum does not have.
RUNAHEAD_API std::string_view Name(Activity activity);  // "compute", "wait", "send", "receive"

/// One stretch of one rank's time, in milliseconds since the prompt phase began.
struct TimelineEvent {
  static constexpr int kAllLayers = -1;

  int rank = 0;
  int layer = 0;  // or kAllLayers
  Activity activity = Activity::kCompute;
  double begin_ms = 0;
  double end_ms = 0;
  size_t bytes = 0;  // waits: waited for; sends and receives: moved
  int peer = -1;     // the other rank of a send or a receive; -1: none or several
};

}  // namespace runahead
