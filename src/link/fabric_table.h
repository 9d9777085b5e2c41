// One fabric out of two: links within a process, and links between processes.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "link/link.h"

namespace runahead {

/// Makes the links between processes, which call `on_failure` with their first failure, from any thread.
using MakeBetween = std::function<std::unique_ptr<Fabric>(std::function<void(const Status&)> on_failure)>;

/// The links of a group's ranks, some of which share a process: `process_of` [ranks] says which. Ranks of process
/// `here` are joined by `within`, and each of them to the others by what `between` makes; both number the whole
/// group's ranks, and make a link when it is first used. When one of the two fails, the other does.
std::unique_ptr<Fabric> MakeFabricTable(std::vector<int> process_of, int here, std::unique_ptr<Fabric> within,
                                        const MakeBetween& between);

}  // namespace runahead
