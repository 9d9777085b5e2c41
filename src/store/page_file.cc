#include "store/page_file.h"

#include <fmt/format.h>

#include <cstring>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace runahead {
namespace {

constexpr std::array<char, 8> kMagic = {'R', 'U', 'N', 'A', 'H', 'E', 'A', 'D'};
constexpr uint32_t kVersion = 1;

/// The bytes of a head as they are; little-endian, as all machines are that Runahead runs on.
struct Raw {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kVersion;
  uint32_t rows = static_cast<uint32_t>(kPageRows);
  uint64_t row_bytes = 0;
  std::array<unsigned char, 32> key{};
  PageSum sum{};
  std::array<int32_t, static_cast<size_t>(kPageRows)> tokens{};
  uint64_t head_sum = 0;  // of all bytes before it
};
static_assert(sizeof(Raw) == kPageHeadBytes && offsetof(Raw, head_sum) + sizeof(uint64_t) == sizeof(Raw));

uint64_t HeadSum(const Raw& raw) { return ::XXH3_64bits(&raw, offsetof(Raw, head_sum)); }

}  // namespace

PageSum SumOf(std::span<const std::byte> bytes) {
  const XXH128_hash_t sum = ::XXH3_128bits(bytes.data(), bytes.size());
  return {sum.low64, sum.high64};
}

std::string Encode(const PageHead& head) {
  Raw raw;
  raw.row_bytes = head.row_bytes;
  raw.key = head.key.bytes;
  raw.sum = head.sum;
  raw.tokens = head.tokens;
  raw.head_sum = HeadSum(raw);
  std::string bytes(sizeof raw, '\0');
  std::memcpy(bytes.data(), &raw, sizeof raw);
  return bytes;
}

Status Decode(std::string_view bytes, PageHead& head) {
  if (bytes.size() != kPageHeadBytes) {
    return Status::Failed(fmt::format("a head has {} bytes, this one {}", kPageHeadBytes, bytes.size()));
  }
  Raw raw;
  std::memcpy(&raw, bytes.data(), sizeof raw);
  if (raw.magic != kMagic) return Status::Failed("it is no page of Runahead's");
  if (raw.head_sum != HeadSum(raw)) return Status::Failed("its head is damaged");
  if (raw.version != kVersion || raw.rows != kPageRows) {
    return Status::Failed(fmt::format("version {} with {} rows, and this program knows version {} with {}",
                                      raw.version, raw.rows, kVersion, kPageRows));
  }
  head = {{raw.key}, raw.tokens, raw.row_bytes, raw.sum};
  return Status::Ok();
}

Status CheckPageFile(std::string_view bytes, const PageKey& key) {
  PageHead head;
  if (Status status = Decode(bytes.substr(0, kPageHeadBytes), head); !status.ok()) return status;
  if (head.key != key) return Status::Failed("it is another page");
  const std::string_view rows = bytes.substr(kPageHeadBytes);
  if (rows.size() != head.row_bytes) {
    return Status::Failed(fmt::format("{} bytes of rows, and its head says {}", rows.size(), head.row_bytes));
  }
  if (SumOf(std::as_bytes(std::span(rows))) != head.sum) return Status::Failed("its rows are damaged");
  return Status::Ok();
}

}  // namespace runahead
