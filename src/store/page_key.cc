#include "store/page_key.h"

#include <openssl/evp.h>

#include <memory>

#include "base/check.h"
#include "kv/kv_pages.h"

namespace runahead {
namespace {

using Context = std::unique_ptr<EVP_MD_CTX, decltype(&::EVP_MD_CTX_free)>;

Context NewContext() {
  Context context(::EVP_MD_CTX_new(), &::EVP_MD_CTX_free);
  CHECK(context != nullptr);
  return context;
}

void Begin(EVP_MD_CTX* context) { CHECK_EQ(::EVP_DigestInit_ex(context, ::EVP_sha256(), nullptr), 1); }

void Add(EVP_MD_CTX* context, const void* data, size_t bytes) {
  CHECK_EQ(::EVP_DigestUpdate(context, data, bytes), 1);
}

PageKey End(EVP_MD_CTX* context) {
  PageKey key;
  unsigned bytes = 0;
  CHECK_EQ(::EVP_DigestFinal_ex(context, key.bytes.data(), &bytes), 1);
  CHECK_EQ(bytes, key.bytes.size());
  return key;
}

/// The value of a hexadecimal digit of Hex, or -1.
int ValueOf(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

}  // namespace

std::string PageKey::Hex() const {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const unsigned char byte : bytes) {
    hex += kDigits[byte >> 4U];
    hex += kDigits[byte & 15U];
  }
  return hex;
}

std::optional<PageKey> PageKey::Parse(std::string_view hex) {
  PageKey key;
  if (hex.size() != 2 * key.bytes.size()) return std::nullopt;
  for (size_t i = 0; i < key.bytes.size(); ++i) {
    const int high = ValueOf(hex[2 * i]);
    const int low = ValueOf(hex[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    key.bytes[i] = static_cast<unsigned char>(16 * high + low);
  }
  return key;
}

PageKey KeyOf(std::initializer_list<std::string_view> parts) {
  const Context context = NewContext();
  Begin(context.get());
  for (const std::string_view part : parts) {
    const uint64_t bytes = part.size();
    Add(context.get(), &bytes, sizeof bytes);
    Add(context.get(), part.data(), part.size());
  }
  return End(context.get());
}

std::vector<PageKey> KeysOf(const PageKey& root, std::span<const int32_t> tokens) {
  constexpr auto kRows = static_cast<size_t>(kPageRows);
  const Context context = NewContext();
  std::vector<PageKey> keys;
  keys.reserve(tokens.size() / kRows);
  PageKey key = root;
  for (; tokens.size() >= kRows; tokens = tokens.subspan(kRows)) {
    Begin(context.get());
    Add(context.get(), key.bytes.data(), key.bytes.size());
    Add(context.get(), tokens.data(), kRows * sizeof(int32_t));
    key = End(context.get());
    keys.push_back(key);
  }
  return keys;
}

}  // namespace runahead
