// What attention knows of positions: angles of rotations, and biases of ALiBi.
#include <cmath>
#include <vector>

#include "model/decoder.h"

namespace runahead {
namespace {

/// A device's copy of host values.
Tensor CopyToDevice(Device& device, Stream& stream, const std::vector<float>& values, const Shape& shape) {
  Tensor tensor;
  tensor.memory = device.Allocate(values.size() * sizeof(float));
  tensor.view = tensor.memory.View(DType::kF32, shape);
  device.CopyFromHost(tensor.view.data(), values.data(), values.size() * sizeof(float), stream);
  stream.Synchronize();
  return tensor;
}

/// Cosines and sines of each position's angles, [positions, frequencies].
struct Angles {
  std::vector<float> cosines;
  std::vector<float> sines;
};

Angles MakeAngles(const RopeSpec& rope, int64_t positions, bool long_sequence) {
  const bool use_long = long_sequence && !rope.long_inverse_frequencies.empty();
  const std::vector<float>* frequencies = use_long ? &rope.long_inverse_frequencies : &rope.inverse_frequencies;
  std::vector<float> stretched;
  Angles angles;
  angles.cosines.reserve(static_cast<size_t>(positions) * frequencies->size());
  angles.sines.reserve(angles.cosines.capacity());
  for (int64_t position = 0; position < positions; ++position) {
    if (rope.dynamic.Stretches(position)) {
      stretched = rope.dynamic.FrequenciesAt(position);
      frequencies = &stretched;
    }
    for (const float frequency : *frequencies) {
      // The angle is a float product, as trained models and HF transformers have it; only its cosine and sine are
      // exact.
      const float angle = static_cast<float>(position) * frequency;
      angles.cosines.push_back(rope.magnitude * static_cast<float>(std::cos(static_cast<double>(angle))));
      angles.sines.push_back(rope.magnitude * static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
  return angles;
}

/// What the queries of each position are multiplied by, [positions] (DecoderSpec::query_growth).
std::vector<float> QueryScales(const DecoderSpec& spec, int64_t positions) {
  std::vector<float> scales;
  for (int64_t position = 0; position < positions; ++position) {
    const int64_t periods = position / spec.query_growth_positions;
    scales.push_back(1 + spec.query_growth * std::log(1 + static_cast<float>(periods)));
  }
  return scales;
}

/// What each head adds to the score of each position, [q_heads, positions]: slope times position; Falcon's was
/// trained in bf16, and is scaled as the scores are.
std::vector<float> AlibiBiases(const DecoderSpec& spec, int64_t positions) {
  std::vector<float> biases;
  biases.reserve(spec.alibi_slopes.size() * static_cast<size_t>(positions));
  for (const float slope : spec.alibi_slopes) {
    for (int64_t position = 0; position < positions; ++position) {
      if (!spec.falcon_alibi) {
        biases.push_back(slope * static_cast<float>(position));
        continue;
      }
      const BFloat16 rounded(static_cast<float>(position));
      const BFloat16 bias(static_cast<float>(BFloat16(slope)) * static_cast<float>(rounded));
      biases.push_back(spec.attention_scale * static_cast<float>(bias));
    }
  }
  return biases;
}

}  // namespace

std::vector<float> DynamicRope::FrequenciesAt(int64_t position) const {
  const auto dim = static_cast<double>(rotary_dim);
  const double length = static_cast<double>(position + 1) / static_cast<double>(trained_positions);
  const auto base = static_cast<float>(theta * std::pow(factor * length - (factor - 1), dim / (dim - 2)));
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rotary_dim; i += 2) {
    frequencies.push_back(1.0F / std::pow(base, static_cast<float>(i) / static_cast<float>(rotary_dim)));
  }
  return frequencies;
}

size_t Decoder::PositionBytes(int64_t positions) const {
  const size_t queries = spec_.query_growth != 0 ? 2 : 1;
  const size_t angles =
      2 * (queries * spec_.rope.inverse_frequencies.size() + spec_.local_rope.inverse_frequencies.size());
  return static_cast<size_t>(positions) * (angles + spec_.alibi_slopes.size()) * sizeof(float);
}

PositionTables Decoder::MakePositions(Ops& ops, int64_t positions, bool long_sequence) const {
  CHECK_GT(positions, 0);
  PositionTables tables;
  tables.positions = positions;
  const std::unique_ptr<Stream> stream = ops.device().NewStream();
  const auto upload = [&](const Angles& angles, size_t frequencies) {
    const Shape shape{positions, static_cast<int64_t>(frequencies)};
    return RopeTable{CopyToDevice(ops.device(), *stream, angles.cosines, shape),
                     CopyToDevice(ops.device(), *stream, angles.sines, shape)};
  };
  const auto make = [&](const RopeSpec& rope) -> std::optional<RopeTable> {
    if (rope.inverse_frequencies.empty()) return std::nullopt;
    return upload(MakeAngles(rope, positions, long_sequence), rope.inverse_frequencies.size());
  };
  tables.rope = make(spec_.rope);
  tables.local_rope = make(spec_.local_rope);
  if (spec_.query_growth != 0) {
    Angles angles = MakeAngles(spec_.rope, positions, long_sequence);
    const size_t frequencies = spec_.rope.inverse_frequencies.size();
    const std::vector<float> scales = QueryScales(spec_, positions);
    for (size_t i = 0; i < angles.cosines.size(); ++i) {
      angles.cosines[i] *= scales[i / frequencies];
      angles.sines[i] *= scales[i / frequencies];
    }
    tables.query_rope = upload(angles, frequencies);
  }
  if (!spec_.alibi_slopes.empty()) {
    const std::vector<float> biases = AlibiBiases(spec_, positions);
    tables.key_bias = CopyToDevice(ops.device(), *stream, biases, {spec_.q_heads, positions});
  }
  return tables;
}

}  // namespace runahead
