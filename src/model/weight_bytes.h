// What a model's matrices take in each format of weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/decoder_spec.h"
#include "ops/weight_format.h"

namespace runahead {

enum class ExpertsCounted : uint8_t { kAll, kChosen };

/// Bytes of the matrices.
struct WeightBytes {
  size_t layers = 0;
  size_t head = 0;

  [[nodiscard]] size_t total() const { return layers + head; }
};

/// The matrices of `spec` with layers in `format` and the head in HeadFormat; `stored`: the dtype of kStored's.
/// `experts`: all, or those that a row goes through.
WeightBytes WeightBytesOf(const DecoderSpec& spec, WeightFormat format, DType stored,
                          ExpertsCounted experts = ExpertsCounted::kAll);

}  // namespace runahead
