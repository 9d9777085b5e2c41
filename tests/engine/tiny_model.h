// A small random model for tests that need some model, written once per process.
#pragma once

#include <filesystem>

namespace runahead {

/// A Llama with grouped-query attention in a folder that is removed when the process ends.
const std::filesystem::path& TinyModelFolder();

}  // namespace runahead
