// What a model is, by all that its files hold.
#pragma once

#include <filesystem>

#include "store/page_key.h"

namespace runahead {

/// The sum of the configuration and of every byte of every weight. Reads them all, on all processors. Throws what
/// ReadModelJson and WeightFiles throw.
PageKey ContentOf(const std::filesystem::path& model);

}  // namespace runahead
