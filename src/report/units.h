// Numbers as people read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace runahead::report {

/// "512 B", "1.50 KiB", "20.0 GiB": three significant digits.
std::string Bytes(size_t bytes);
/// "7,168".
std::string Grouped(int64_t value);
/// "0.042 ms", "3.21 ms", "981 ms", "12.3 s".
std::string Milliseconds(double ms);
/// "87.5 GB/s" for `bytes` in `ms`; "" when no time passed.
std::string Rate(size_t bytes, double ms);

}  // namespace runahead::report
