// Links between ranks that are threads of one process and share its memory.
#pragma once

#include <memory>

#include "link/link.h"

namespace runahead {

/// A fabric whose transfers are copies in host memory, made by whichever side posts last: no extra thread, no extra
/// copy.
std::unique_ptr<Fabric> MakeLocalFabric(int ranks);

}  // namespace runahead
