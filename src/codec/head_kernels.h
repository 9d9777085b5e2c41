// Heads of keys and values as fewer bits and back, with the processor's vectors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runahead/options.h"
#include "tensor/dtype.h"

namespace runahead::cpu {

/// Features that are encoded together; longer heads are cut into pieces of so many.
inline constexpr int64_t kPieceFeatures = 128;

/// How a head of `features` numbers of `dtype` is encoded. Each piece: a bf16 scale for every group of its features,
/// then their codes. Lossy formats alone.
struct HeadCoding {
  WireFormat format = WireFormat::kInt8;
  DType dtype = DType::kF32;
  int64_t features = 0;
  int64_t group = 0;      // features that share a scale, a divisor of kPieceFeatures
  int64_t mixed = 1;      // features that a Hadamard transform mixes, a power of two that divides both; 1: none
  size_t head_bytes = 0;  // bytes of an encoded head, even
  bool bounds = false;    // whether EncodeHeads looks for the largest error
};

/// Encodes `count` heads that follow each other. Returns an upper bound of the Euclidean distance between any head
/// and what is decoded of it; 0 without HeadCoding::bounds, infinity where a number is not finite.
double EncodeHeads(const HeadCoding& coding, const void* from, int64_t count, std::byte* to);

/// Any bytes decode to some numbers.
void DecodeHeads(const HeadCoding& coding, const std::byte* from, int64_t count, void* to);

}  // namespace runahead::cpu
