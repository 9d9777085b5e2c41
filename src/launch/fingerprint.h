// Tells two models apart without reading them.
#pragma once

#include <filesystem>
#include <string>

namespace runahead {

/// 16 hex digits of config.json, of every tensor's name, dtype and shape, and of a few bytes from the middle of each:
/// what ranks that should hold the same model compare. Milliseconds, whatever the model's size. Throws what reading
/// the folder throws.
std::string ModelFingerprint(const std::filesystem::path& model);

}  // namespace runahead
