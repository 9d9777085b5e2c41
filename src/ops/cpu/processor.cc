#include "ops/cpu/processor.h"

#include <hwy/targets.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace runahead::cpu {

#if defined(__x86_64__)

bool HasBf16Vectors() {
  static const bool has = (hwy::SupportedTargets() & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512bf16");
  return has;
}

bool HasBf16Tiles() {
  static const bool has = [] {
    constexpr long kRequestPermission = 0x1023;                 // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;                              // XFEATURE_XTILEDATA
    constexpr unsigned kTilesOfBf16 = (1u << 22) | (1u << 24);  // amx_bf16, amx_tile
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return HasBf16Vectors() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
           (edx & kTilesOfBf16) == kTilesOfBf16 && ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return has;
}

#else

bool HasBf16Vectors() { return false; }
bool HasBf16Tiles() { return false; }

#endif

}  // namespace runahead::cpu
