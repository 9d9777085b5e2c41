// Numbers and names that nobody can foresee.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace runahead::protocol {

/// "cmpl-" and such a prefix with 32 hexadecimal digits behind it. Thread-safe.
std::string RandomId(std::string_view prefix);

/// A seed for sampling, below 2^63. Thread-safe.
uint64_t RandomSeed();

}  // namespace runahead::protocol
