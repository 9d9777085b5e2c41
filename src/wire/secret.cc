#include "wire/secret.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/check.h"
#include "base/file.h"
#include "runahead/error.h"

namespace runahead {

Nonce NewNonce() {
  Nonce nonce;
  ssize_t got = 0;
  do {
    got = ::getrandom(nonce.data(), nonce.size(), 0);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(nonce.size())) throw IoError("the kernel gives no random bytes");
  return nonce;
}

Mac MacOf(std::string_view key, std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text.append(part);
  Mac mac;
  unsigned bytes = 0;
  const auto* const made = ::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()),
                                  reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                                  reinterpret_cast<unsigned char*>(mac.data()), &bytes);
  CHECK(made != nullptr && bytes == mac.size());
  return mac;
}

bool SameMac(const Mac& a, const Mac& b) { return ::CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

std::string ReadSecret(const std::filesystem::path& path) {
  constexpr size_t kFewestBytes = 16;
  std::string secret = ReadFile(path);
  struct stat facts {};
  if (::stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode) && (facts.st_mode & 077) != 0) {
    throw ConfigError(
        fmt::format("{}: others may read the secret (mode {:o}): chmod 600", path.string(), facts.st_mode & 0777));
  }
  secret.erase(secret.find_last_not_of(" \t\r\n") + 1);
  if (secret.size() >= kFewestBytes) return secret;
  throw ConfigError(
      fmt::format("{}: a secret has at least {} bytes, not {}", path.string(), kFewestBytes, secret.size()));
}

}  // namespace runahead
