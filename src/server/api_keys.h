// Keys that clients must know, read from a file and compared in constant time.
#pragma once

#include <array>
#include <filesystem>
#include <string_view>
#include <vector>

namespace runahead::server {

/// Immutable. Keeps digests, not the keys.
class ApiKeys {
 public:
  /// One key a line; empty lines and those that begin with # say nothing. Throws IoError when the file cannot be
  /// read, ConfigError when it has no key, or a line is none: visible ASCII without spaces.
  explicit ApiKeys(const std::filesystem::path& file);

  /// Takes as long for every key that is wrong.
  [[nodiscard]] bool Knows(std::string_view key) const;
  [[nodiscard]] size_t size() const { return digests_.size(); }

 private:
  using Digest = std::array<unsigned char, 32>;  // SHA-256
  static Digest DigestOf(std::string_view key);

  std::vector<Digest> digests_;
};

}  // namespace runahead::server
