// What the fuzz targets share: a folder of their own, and calls that may refuse a file but do nothing else.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/file.h"
#include "runahead/error.h"

namespace runahead::fuzz {

/// A folder of this process, made at the first call and removed at its end.
inline const std::filesystem::path& Folder() {
  struct Temporary {
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("runahead-fuzz-" + std::to_string(::getpid()));
    Temporary() { std::filesystem::create_directories(path); }
    ~Temporary() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };
  static const Temporary folder;
  return folder.path;
}

inline std::string_view TextOf(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Calls `read`. A file may be refused, with one of our errors that says something; anything else is a finding.
template <typename Read>
void MayRefuse(Read&& read) {
  try {
    read();
  } catch (const Error& error) {
    if (std::string_view(error.what()).empty()) __builtin_trap();
  }
}

}  // namespace runahead::fuzz
