// A small random model for tests that need some model, written once per process.
#pragma once

#include <filesystem>
#include <string>

namespace runahead {

/// A preset of make-model, a Llama with grouped-query attention by default, in a folder that is removed when the
/// process ends.
const std::filesystem::path& TinyModelFolder(const std::string& preset = "tiny-llama");

}  // namespace runahead
