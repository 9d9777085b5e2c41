#include "model/gguf/dequantise.h"

#include <array>
#include <cstring>

#include "base/check.h"
#include "tensor/dtype.h"

namespace runahead::gguf {
namespace {

constexpr int kSmall = 32;   // elements of a block of the older types
constexpr int kLarge = 256;  // elements of a block of the K types

float Half(const std::byte* at) {
  Float16 value;
  std::memcpy(&value, at, sizeof value);
  return static_cast<float>(value);
}

int Byte(const std::byte* at) { return std::to_integer<int>(*at); }
int SignedByte(const std::byte* at) { return static_cast<int8_t>(std::to_integer<uint8_t>(*at)); }

/// Scale f16, then 4 bits each: elements i and i + 16 share byte i.
template <bool kMinimum, bool kFifthBit>
void DequantiseSmall(const std::byte* block, float* to) {
  const float scale = Half(block);
  const float minimum = kMinimum ? Half(block + 2) : 0;
  const std::byte* at = block + (kMinimum ? 4 : 2);
  uint32_t fifth = 0;
  if (kFifthBit) {
    std::memcpy(&fifth, at, sizeof fifth);
    at += sizeof fifth;
  }
  constexpr int kCentre = kMinimum ? 0 : kFifthBit ? 16 : 8;
  for (int half = 0; half < 2; ++half, to += kSmall / 2) {
    for (int i = 0; i < kSmall / 2; ++i) {
      const int low = Byte(at + i) >> 4 * half & 15;
      const int high = kFifthBit ? static_cast<int>(fifth >> (kSmall / 2 * half + i) & 1) << 4 : 0;
      const float product = scale * static_cast<float>((low | high) - kCentre);
      to[i] = kMinimum ? product + minimum : product;
    }
  }
}

/// Scale f16, then a signed byte each.
void DequantiseQ8(const std::byte* block, float* to) {
  const float scale = Half(block);
  for (int i = 0; i < kSmall; ++i) to[i] = static_cast<float>(SignedByte(block + 2 + i)) * scale;
}

/// Scale and minimum of one of eight groups of 32 elements, 6 bits each, of the 12 bytes at `packed`: the first four
/// in the lower six bits of bytes 0 to 7, the others in bytes 8 to 11 and the upper two bits of the first eight.
struct GroupScale {
  int scale;
  int minimum;
};
GroupScale ScaleOf(const std::byte* packed, int group) {
  if (group < 4) return {Byte(packed + group) & 63, Byte(packed + group + 4) & 63};
  const int low = Byte(packed + group + 4);
  return {(low & 15) | Byte(packed + group - 4) >> 6 << 4, low >> 4 | Byte(packed + group) >> 6 << 4};
}

/// Scales of scales and of minima f16, 12 bytes of ScaleOf, with a fifth bit 32 bytes of them, 4 bits each: groups
/// 2g and 2g + 1 share 32 bytes.
template <bool kFifthBit>
void DequantiseGroups(const std::byte* block, float* to) {
  const float scale = Half(block);
  const float minimum = Half(block + 2);
  const std::byte* packed = block + 4;
  const std::byte* fifth = packed + 12;
  const std::byte* nibbles = fifth + (kFifthBit ? kLarge / 8 : 0);
  for (int group = 0; group < 8; ++group) {
    const GroupScale own = ScaleOf(packed, group);
    const float group_scale = scale * static_cast<float>(own.scale);
    const float group_minimum = minimum * static_cast<float>(own.minimum);
    for (int i = 0; i < 32; ++i) {
      const int low = Byte(nibbles + group / 2 * 32 + i) >> 4 * (group % 2) & 15;
      const int high = kFifthBit ? (Byte(fifth + i) >> group & 1) << 4 : 0;
      const float product = group_scale * static_cast<float>(low | high);
      to[group * 32 + i] = product - group_minimum;
    }
  }
}

/// 128 bytes of the lower four bits, 64 of the upper two, 16 signed scales of 16 elements each, their scale f16. Each
/// half of the block has 64 and 32 of the bytes.
void DequantiseQ6K(const std::byte* block, float* to) {
  const std::byte* lower = block;
  const std::byte* upper = lower + kLarge / 2;
  const std::byte* scales = upper + kLarge / 4;
  const float scale = Half(scales + 16);
  for (int group = 0; group < 16; ++group, to += 16) {
    const int half = group / 8;
    const int within = group % 8;  // in the half
    const std::byte* low = lower + half * 64 + within % 4 * 16;
    const std::byte* high = upper + half * 32 + within % 2 * 16;
    const float group_scale = scale * static_cast<float>(SignedByte(scales + group));
    for (int i = 0; i < 16; ++i) {
      const int bits = (Byte(low + i) >> 4 * (within / 4) & 15) | (Byte(high + i) >> 2 * (within / 2) & 3) << 4;
      to[i] = group_scale * static_cast<float>(bits - 32);
    }
  }
}

constexpr std::array<ElementType, 11> kTypes = {{
    {0, "F32", 1, 4, nullptr},
    {1, "F16", 1, 2, nullptr},
    {2, "Q4_0", kSmall, 18, &DequantiseSmall<false, false>},
    {3, "Q4_1", kSmall, 20, &DequantiseSmall<true, false>},
    {6, "Q5_0", kSmall, 22, &DequantiseSmall<false, true>},
    {7, "Q5_1", kSmall, 24, &DequantiseSmall<true, true>},
    {8, "Q8_0", kSmall, 34, &DequantiseQ8},
    {12, "Q4_K", kLarge, 144, &DequantiseGroups<false>},
    {13, "Q5_K", kLarge, 176, &DequantiseGroups<true>},
    {14, "Q6_K", kLarge, 210, &DequantiseQ6K},
    {30, "BF16", 1, 2, nullptr},
}};

}  // namespace

const ElementType* TypeOf(uint32_t number) {
  for (const ElementType& type : kTypes) {
    if (type.number == number) return &type;
  }
  return nullptr;
}

const ElementType* TypeNamed(std::string_view name) {
  for (const ElementType& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

std::string TypeNames() {
  std::string names;
  for (const ElementType& type : kTypes) names += (names.empty() ? "" : ", ") + std::string(type.name);
  return names;
}

void Dequantise(const ElementType& type, std::span<const std::byte> blocks, float* to) {
  CHECK(type.dequantise != nullptr && blocks.size() % type.bytes == 0);
  for (size_t at = 0; at < blocks.size(); at += type.bytes, to += type.block) type.dequantise(blocks.data() + at, to);
}

}  // namespace runahead::gguf
