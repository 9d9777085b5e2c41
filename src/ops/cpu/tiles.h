// AMX tiles: their shapes and their instructions, in own assembly, since the compiler's intrinsics do not say which
// memory they read: GCC 12 drops stores in front of _tile_loadconfig.
#pragma once

#include <cstdint>

namespace runahead::cpu {

/// The shapes of the tiles, as LDTILECFG takes them.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

/// Gives the calling thread its tiles, all zeros.
inline void ConfigureTiles(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory"); }
inline void ReleaseTiles() { asm volatile("tilerelease" ::: "memory"); }

/// The calling thread's tiles, from its birth to its death.
class TileScope {
 public:
  explicit TileScope(const TileShapes& shapes) { ConfigureTiles(shapes); }
  ~TileScope() { ReleaseTiles(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

template <int kTile>
inline void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
/// Rows `stride_bytes` apart.
template <int kTile>
inline void LoadTile(const void* from, int64_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(kTile) : "memory");
}
template <int kTile>
inline void StoreTile(void* to, int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes), "i"(kTile) : "memory");
}
/// Tile kSums += kLeft [rows, pairs] times kRight [pairs, columns], of bf16 pairs.
template <int kSums, int kLeft, int kRight>
inline void MultiplyTiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kLeft), "i"(kRight));
}

/// Tile kSums += kLeft [rows, quads] times kRight [quads, columns], of fours of int8 and of unsigned bytes.
template <int kSums, int kLeft, int kRight>
inline void MultiplyByteTiles() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kLeft), "i"(kRight));
}

}  // namespace runahead::cpu
