#include "link/ucx/ucx_address.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr std::string_view kMagic = "RAUX";

/// What stands before an address: magic, bytes, and their FNV-1a sum.
constexpr size_t kPrefixBytes = 4 + 4 + 8;

std::string PrefixOf(std::string_view address) {
  uint64_t sum = 0xcbf29ce484222325U;
  for (const char byte : address) sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3U;
  const auto bytes = static_cast<uint32_t>(address.size());
  std::string prefix(kMagic);
  prefix.resize(kPrefixBytes);
  std::memcpy(prefix.data() + 4, &bytes, sizeof bytes);
  std::memcpy(prefix.data() + 8, &sum, sizeof sum);
  return prefix;
}

}  // namespace

std::string WrapUcxAddress(std::string_view address) { return PrefixOf(address) + std::string(address); }

std::string_view UnwrapUcxAddress(std::string_view wrapped) {
  if (wrapped.size() > kPrefixBytes) {
    const std::string_view address = wrapped.substr(kPrefixBytes);
    if (PrefixOf(address) == wrapped.substr(0, kPrefixBytes)) return address;
  }
  throw LinkError(fmt::format("an address of {} bytes is none of UCX's", wrapped.size()));
}

}  // namespace runahead
