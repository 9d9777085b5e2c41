// All that keeps a model from running, told at once.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"

namespace runahead {

/// What stands between the folder `dir`, whose config.json is `config`, and LoadDecoder: one line for each option,
/// quantisation and file that is not supported, in the order in which they are met. Empty: nothing that headers tell.
/// Where a field cannot be honoured, what follows is read as if it were not there.
std::vector<std::string> Obstacles(const std::filesystem::path& dir, const Json& config);

}  // namespace runahead
