#include "ops/cpu/quantise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/quantise.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

using IntTag = hn::RebindToSigned<FloatTag>;
using IntVec = hn::Vec<IntTag>;

constexpr int32_t kInfinityBits = 0x7f800000;
constexpr float kSmallest = 0x1p-100f;  // blocks without a larger magnitude are zeros

/// The largest bits of the magnitudes of `n` numbers, a multiple of the lanes: those of an infinity or beyond where
/// one is not finite.
template <typename T>
int32_t LargestBits(const T* from, int64_t n) {
  const FloatTag d;
  const IntTag di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto largest = hn::Zero(di);
  for (int64_t i = 0; i < n; i += lanes) {
    const auto bits = hn::BitCast(di, LoadFloats(d, from + i));
    largest = hn::Max(largest, hn::And(bits, hn::Set(di, 0x7fffffff)));
  }
  return hn::GetLane(hn::MaxOfLanes(di, largest));
}

float FloatOfBits(int32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// Codes of `n` numbers, a multiple of the lanes and of kGroupDepth: their values times `factor`, rounded to nearest
/// even. Returns their sum; `group_sums` may be null.
template <typename T>
int32_t Encode(const T* from, int64_t n, float factor, int8_t* codes, int16_t* group_sums) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<int8_t, FloatTag> d8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto by = hn::Set(d, factor);
  int32_t sum = 0;
  for (int64_t group = 0; group < n; group += kGroupDepth) {
    auto sums = hn::Zero(di);
    for (int64_t i = group; i < group + kGroupDepth; i += lanes) {
      const auto whole = hn::NearestInt(hn::Mul(LoadFloats(d, from + i), by));
      sums = hn::Add(sums, whole);
      hn::StoreU(hn::DemoteTo(d8, whole), d8, codes + i);
    }
    const int32_t of_group = hn::GetLane(hn::SumOfLanes(di, sums));
    if (group_sums != nullptr) group_sums[group / kGroupDepth] = static_cast<int16_t>(of_group);
    sum += of_group;
  }
  return sum;
}

/// One block of activations.
template <typename T>
void EncodeBlock(const T* from, int64_t n, int64_t row, int64_t block, const QuantisedRows& to) {
  const int32_t largest = LargestBits(from, n);
  int8_t* codes = to.codes + row * to.padded + block * kBlockDepth;
  int16_t* sums = to.group_sums == nullptr ? nullptr : to.group_sums + block * (kBlockDepth / kGroupDepth);
  float scale = 0;
  int32_t offset = 0;
  if (largest < kInfinityBits && FloatOfBits(largest) >= kSmallest) {
    scale = FloatOfBits(largest) / 127.0f;
    offset = -128 * Encode(from, n, 127.0f / FloatOfBits(largest), codes, sums);
  } else {
    if (largest >= kInfinityBits) scale = std::numeric_limits<float>::quiet_NaN();
    std::memset(codes, 0, static_cast<size_t>(n));
    if (sums != nullptr) std::fill_n(sums, n / kGroupDepth, int16_t{0});
  }
  to.scales[block * to.stride + row] = scale;
  to.offsets[block * to.stride + row] = offset;
}

void EncodeRows(const TensorView& x, const QuantisedRows& to) {
  const int64_t depth = x.row_elements();
  const int64_t whole = depth / kBlockDepth;
  Dispatch(x.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = 0; i < x.rows(); ++i) {
      const T* row = x.As<T>() + i * x.row_stride();
      for (int64_t block = 0; block < whole; ++block)
        EncodeBlock(row + block * kBlockDepth, kBlockDepth, i, block, to);
      if (whole * kBlockDepth == depth) continue;
      HWY_ALIGN T rest[kBlockDepth] = {};
      for (int64_t k = whole * kBlockDepth; k < depth; ++k) rest[k - whole * kBlockDepth] = row[k];
      EncodeBlock(&rest[0], to.padded - whole * kBlockDepth, i, whole, to);
    }
  });
}

// ---- Weights --------------------------------------------------------------------------------------------------

/// A group's numbers in units of its block's scale, and the best code so far.
struct Group {
  HWY_ALIGN float values[kGroupDepth];
  int64_t least_error = std::numeric_limits<int64_t>::max();
  int32_t step = 1;
  int32_t zero = 0;
};

template <typename Visit>
HWY_INLINE void ForCodes(const float* values, int32_t step, int32_t zero, const Visit& visit) {
  const FloatTag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto offset = hn::Set(d, static_cast<float>(zero));
  const auto per_step = hn::Set(d, 1.0f / static_cast<float>(step));
  for (int64_t i = 0; i < kGroupDepth; i += lanes) {
    const auto scaled = hn::Mul(hn::Sub(hn::Load(d, values + i), offset), per_step);
    visit(i, hn::NearestInt(hn::Min(hn::Max(scaled, hn::Zero(d)), hn::Set(d, 15.0f))));
  }
}

/// Takes step and zero where they are better. Errors are counted in whole 128ths, so that sums of their squares are
/// exact.
void Try(Group& group, int32_t step, int32_t zero) {
  if (step < 1 || zero < -128 || zero + 15 * step > 127) return;
  const FloatTag d;
  const IntTag di;
  auto sum = hn::Zero(di);
  ForCodes(group.values, step, zero, [&](int64_t i, IntVec code) HWY_ATTR {
    const auto real = hn::ConvertTo(d, hn::Add(hn::Mul(code, hn::Set(di, step)), hn::Set(di, zero)));
    const auto error = hn::NearestInt(hn::Mul(hn::Sub(real, hn::Load(d, group.values + i)), hn::Set(d, 128.0f)));
    sum = hn::Add(sum, hn::Mul(error, error));
  });
  const int64_t error = hn::GetLane(hn::SumOfLanes(di, sum));
  if (error >= group.least_error) return;
  group.least_error = error;
  group.step = step;
  group.zero = zero;
}

/// Steps around that of the whole range, a little of which the outermost numbers may lose, and grids in several
/// phases.
void Search(Group& group) {
  const auto [low, high] = std::minmax_element(&group.values[0], &group.values[0] + kGroupDepth);
  const auto whole = static_cast<int32_t>(std::ceil((*high - *low) / 15));
  const float middle = (*high + *low) / 2;
  for (int32_t step = std::max(1, whole - 2); step <= whole || step == 1; ++step) {
    const float reach = 7.5f * static_cast<float>(step);
    const auto centred = static_cast<int32_t>(std::lround(middle - reach));
    const int32_t first = std::clamp(centred, -128, 127 - 15 * step);
    constexpr int32_t kPhases = 2;
    for (int32_t phase = -kPhases; phase <= kPhases; ++phase)
      Try(group, step, first + phase * step / (2 * kPhases + 1));
  }
}

void EncodeGroup(Group& group, int64_t index, QuantisedRow& row) {
  Search(group);
  const auto at = static_cast<size_t>(index);
  row.steps[at] = static_cast<uint8_t>(group.step);
  row.zeros[at] = static_cast<int8_t>(group.zero);
  const hn::Rebind<int8_t, IntTag> d8;
  HWY_ALIGN int8_t codes[kGroupDepth];
  ForCodes(group.values, group.step, group.zero,
           [&](int64_t i, IntVec code) HWY_ATTR { hn::StoreU(hn::DemoteTo(d8, code), d8, codes + i); });
  for (int64_t i = 0; i < kGroupDepth; ++i) {
    const auto k = static_cast<size_t>(index * kGroupDepth + i);
    row.nibbles[k] = static_cast<uint8_t>(codes[i]);
    row.codes[k] = static_cast<int8_t>(group.step * codes[i] + group.zero);
  }
}

/// One block of int4's weights; `weights` has `n` of them, a multiple of kGroupDepth.
void EncodeNibbles(const float* weights, int64_t n, float largest, int64_t block, QuantisedRow& row) {
  constexpr float kMost = 119;  // of int8's range: room for the nearest grid around the outermost numbers
  const FloatTag d;
  const auto by = hn::Set(d, kMost / largest);
  row.scales[static_cast<size_t>(block)] = largest / kMost;
  for (int64_t first = 0; first < n; first += kGroupDepth) {
    Group group;
    for (int64_t i = 0; i < kGroupDepth; i += static_cast<int64_t>(hn::Lanes(d))) {
      hn::Store(hn::Mul(hn::LoadU(d, weights + first + i), by), d, &group.values[i]);
    }
    EncodeGroup(group, (block * kBlockDepth + first) / kGroupDepth, row);
  }
}

/// One block of `n` weights. Returns whether all are finite.
bool EncodeWeights(WeightFormat format, const float* weights, int64_t n, int64_t block, QuantisedRow& row) {
  const int32_t largest = LargestBits(weights, n);
  if (largest >= kInfinityBits) return false;
  const float magnitude = FloatOfBits(largest);
  if (magnitude < kSmallest) return true;  // zeros, as the row begins
  if (format == WeightFormat::kInt4) {
    EncodeNibbles(weights, n, magnitude, block, row);
  } else {
    row.scales[static_cast<size_t>(block)] = magnitude / 127.0f;
    Encode(weights, n, 127.0f / magnitude, row.codes.data() + block * kBlockDepth, nullptr);
  }
  return true;
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(EncodeRows);
HWY_EXPORT(EncodeWeights);

int64_t QuantiseWeights(WeightFormat format, const float* weights, int64_t depth, QuantisedRow& row) {
  const auto padded = static_cast<size_t>((depth + kDepthMultiple - 1) / kDepthMultiple * kDepthMultiple);
  const auto blocks = static_cast<size_t>((depth + kBlockDepth - 1) / kBlockDepth);
  row.codes.assign(padded, 0);
  row.scales.assign(blocks, 0.0f);
  if (format == WeightFormat::kInt4) {
    row.nibbles.assign(padded, 0);
    row.steps.assign(padded / kGroupDepth, 1);
    row.zeros.assign(padded / kGroupDepth, 0);
  }
  for (int64_t block = 0; block < std::ssize(row.scales); ++block) {
    const float* from = weights + block * kBlockDepth;
    int64_t n = std::min(kBlockDepth, depth - block * kBlockDepth);
    float rest[kBlockDepth];
    if (n < kBlockDepth) {
      const int64_t whole = (n + kDepthMultiple - 1) / kDepthMultiple * kDepthMultiple;
      std::fill(std::copy_n(from, n, &rest[0]), &rest[0] + whole, 0.0f);
      from = &rest[0];
      n = whole;
    }
    if (HWY_DYNAMIC_DISPATCH(EncodeWeights)(format, from, n, block, row)) continue;
    return std::find_if(weights, weights + depth, [](float weight) { return !std::isfinite(weight); }) - weights;
  }
  return -1;
}

void QuantiseActivations(const TensorView& x, const QuantisedRows& to) { HWY_DYNAMIC_DISPATCH(EncodeRows)(x, to); }

}  // namespace runahead::cpu
#endif  // HWY_ONCE
