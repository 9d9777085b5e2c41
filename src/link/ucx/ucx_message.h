// What processes of a group say to each other beside the rows themselves.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

namespace runahead {

/// Begins every message. Sent as it lies in memory: all that take part are little-endian, as UCX itself asks.
struct UcxHeader {
  enum class Kind : uint32_t {
    kReady = 1,    // receiver to sender: the span may come
    kRows = 2,     // sender to receiver: one piece of the span follows
    kRefused = 3,  // sender to receiver: its own span, which is another one
    kFailed = 4,   // to all: the group is dead; the reason follows as text
  };
  static constexpr uint32_t kMagic = 0x314B4152;  // "RAK1": changes with this struct

  uint32_t magic = kMagic;
  Kind kind = Kind::kReady;
  uint64_t group = 0;
  int32_t from = 0;  // ranks of the link
  int32_t to = 0;
  uint64_t number = 0;  // of the span on its link, from 0
  int32_t layer = 0;
  int32_t piece = 0;  // kRows: 0 the keys, 1 the values
  int64_t begin = 0;  // rows
  int64_t end = 0;
  uint64_t k_bytes = 0;
  uint64_t v_bytes = 0;
  uint32_t dtype = 0;
  uint32_t unused = 0;
};
static_assert(std::is_trivially_copyable_v<UcxHeader> && sizeof(UcxHeader) == 80);
static_assert(std::endian::native == std::endian::little);

/// Id of UCX's active messages that all of these travel as.
inline constexpr unsigned kUcxMessage = 1;
/// Most bytes of a reason.
inline constexpr size_t kMostUcxText = 1000;

/// The header in `bytes`; nothing where that is none.
inline std::optional<UcxHeader> ReadUcxHeader(std::string_view bytes) {
  UcxHeader header;
  if (bytes.size() != sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto kind = static_cast<uint32_t>(header.kind);
  if (header.magic != UcxHeader::kMagic || kind < 1 || kind > 4) return std::nullopt;
  return header;
}

}  // namespace runahead
