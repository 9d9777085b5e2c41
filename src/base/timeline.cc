#include "base/timeline.h"

#include "base/check.h"

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
  internal::CheckFailed(__FILE__, __LINE__, "unknown activity");
}

}  // namespace runahead
