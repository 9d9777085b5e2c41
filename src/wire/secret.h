// The secret that the processes of a group share, and what they prove with it.
#pragma once

#include <array>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

namespace runahead {

using Nonce = std::array<char, 32>;
using Mac = std::array<char, 32>;

/// 32 bytes that nobody can foresee. Throws IoError where the kernel has none.
Nonce NewNonce();

/// HMAC-SHA256 (RFC 2104) of the parts, one after the other; each part but the last must have a length that is fixed.
Mac MacOf(std::string_view key, std::initializer_list<std::string_view> parts);

/// Compares in a time that does not depend on where they differ.
bool SameMac(const Mac& a, const Mac& b);

template <size_t kBytes>
std::string_view TextOf(const std::array<char, kBytes>& bytes) {
  return {bytes.data(), kBytes};
}

/// The secret in a file, without the whitespace at its end. Throws IoError where it cannot be read; ConfigError where
/// others than its owner may read it, or it has fewer than 16 bytes.
std::string ReadSecret(const std::filesystem::path& path);

}  // namespace runahead
