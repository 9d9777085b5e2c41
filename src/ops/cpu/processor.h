// Instructions of the processor that this runs on, beyond those that Highway finds; none of them where Highway was
// told to do without AVX-512.
#pragma once

namespace runahead::cpu {

/// AVX-512 BF16: products of bf16 pairs in vectors.
bool HasBf16Vectors();
/// AMX with bf16, and the kernel's leave to use it.
bool HasBf16Tiles();
/// AVX-512 VNNI: products of int8 in vectors.
bool HasInt8Vectors();
/// AMX with int8, beside HasInt8Vectors.
bool HasInt8Tiles();
/// AVX2 and FMA.
bool HasAvx2();
/// NEON's dot products of int8.
bool HasNeonDots();

}  // namespace runahead::cpu
