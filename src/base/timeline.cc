#include "base/timeline.h"

#include <fmt/format.h>

#include "runahead/error.h"

namespace runahead {

std::string_view Name(Activity activity) {
  switch (activity) {
    case Activity::kCompute:
      return "compute";
    case Activity::kWait:
      return "wait";
    case Activity::kSend:
      return "send";
    case Activity::kReceive:
      return "receive";
  }
  throw ConfigError(fmt::format("activity: no value has the number {}", static_cast<int>(activity)));
}

}  // namespace runahead
