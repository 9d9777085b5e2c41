#include "protocol/random_id.h"

#include <fmt/format.h>

#include <random>

namespace runahead::protocol {
namespace {

uint64_t Random64() {
  thread_local std::random_device device;
  constexpr int kHalf = 32;
  return uint64_t{device()} << kHalf | device();
}

}  // namespace

std::string RandomId(std::string_view prefix) {
  return fmt::format("{}{:016x}{:016x}", prefix, Random64(), Random64());
}

uint64_t RandomSeed() { return Random64() >> 1; }

}  // namespace runahead::protocol
