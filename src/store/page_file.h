// The file of one page: a head that says whose rows follow, and their sum; then the rows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "kv/kv_pages.h"
#include "store/page_key.h"

namespace runahead {

/// An XXH3 sum of 128 bits, against accidents.
using PageSum = std::array<uint64_t, 2>;
PageSum SumOf(std::span<const std::byte> bytes);

/// What stands in front of the rows.
struct PageHead {
  PageKey key;
  std::array<int32_t, static_cast<size_t>(kPageRows)> tokens{};
  uint64_t row_bytes = 0;  // bytes of all rows: what follows
  PageSum sum{};           // of them
};

/// Bytes of every head.
inline constexpr size_t kPageHeadBytes = 592;

/// kPageHeadBytes, with a sum of their own.
std::string Encode(const PageHead& head);
/// Bytes that may be anything; what is taken is what Encode gave. A failure says what is wrong.
Status Decode(std::string_view bytes, PageHead& head);

/// A whole file that may be anything. A failure says what is wrong.
Status CheckPageFile(std::string_view bytes, const PageKey& key);

}  // namespace runahead
