// What an engine does, as JSON for those who look on.
#pragma once

#include <string>

#include "runahead/engine_status.h"

namespace runahead::protocol {

/// The fields of a status, without the braces around them: "healthy", "failure", "ranks", ...
std::string StatusFields(const EngineStatus& status);

}  // namespace runahead::protocol
