#include "server/api_keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <string>

#include "base/file.h"
#include "runahead/error.h"

namespace runahead::server {
namespace {

bool IsKey(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

ApiKeys::Digest ApiKeys::DigestOf(std::string_view key) {
  Digest digest{};
  if (EVP_Digest(key.data(), key.size(), digest.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    throw Error("OpenSSL computes no SHA-256");
  }
  return digest;
}

ApiKeys::ApiKeys(const std::filesystem::path& file) {
  const std::string text = ReadFile(file);
  std::string_view rest = text;
  for (int number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    if (!IsKey(line)) {
      throw ConfigError(fmt::format("{}: line {}: a key is visible ASCII without spaces", file.string(), number));
    }
    digests_.push_back(DigestOf(line));
  }
  if (digests_.empty()) throw ConfigError(fmt::format("{}: has no key", file.string()));
}

bool ApiKeys::Knows(std::string_view key) const {
  const Digest digest = DigestOf(key);
  bool known = false;
  for (const Digest& other : digests_) {
    const bool same = CRYPTO_memcmp(digest.data(), other.data(), digest.size()) == 0;
    known = same || known;
  }
  return known;
}

}  // namespace runahead::server
