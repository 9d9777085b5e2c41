// Fields that other servers know and this one does not serve.
#pragma once

#include "base/json.h"

namespace runahead::protocol {

/// Throws ApiError naming the first field of a body that asks for what is not served, such as tools; values that ask
/// for nothing ("tools": [], "best_of": 1) pass. All fields that nobody knows pass.
void RefuseUnsupported(const Json& body, bool chat);

}  // namespace runahead::protocol
