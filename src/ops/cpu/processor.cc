#include "ops/cpu/processor.h"

#include <hwy/targets.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace runahead::cpu {

#if defined(__x86_64__)

bool HasBf16Vectors() {
  static const bool has = (hwy::SupportedTargets() & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512bf16");
  return has;
}

namespace {

/// Whether AMX has `features` of CPUID's, and the kernel lets us use its tiles.
bool HasTiles(unsigned features) {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & features) == features &&
         ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

constexpr unsigned kTiles = 1u << 24;
constexpr unsigned kTilesOfBf16 = 1u << 22;
constexpr unsigned kTilesOfInt8 = 1u << 25;

}  // namespace

bool HasBf16Tiles() {
  static const bool has = HasBf16Vectors() && HasTiles(kTiles | kTilesOfBf16);
  return has;
}

bool HasInt8Vectors() {
  static const bool has = (hwy::SupportedTargets() & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512vnni");
  return has;
}

bool HasInt8Tiles() {
  static const bool has = HasInt8Vectors() && HasTiles(kTiles | kTilesOfInt8);
  return has;
}

bool HasAvx2() {
  static const bool has = (hwy::SupportedTargets() & HWY_AVX2) != 0;
  return has;
}

bool HasNeonDots() { return false; }

#else

bool HasBf16Vectors() { return false; }
bool HasBf16Tiles() { return false; }
bool HasInt8Vectors() { return false; }
bool HasInt8Tiles() { return false; }
bool HasAvx2() { return false; }

bool HasNeonDots() {
#if defined(__aarch64__) && defined(__linux__)
  static const bool has = (::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  return has;
#else
  return false;
#endif
}

#endif

}  // namespace runahead::cpu
