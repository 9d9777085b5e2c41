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

Angles MakeAngles(const std::vector<float>& frequencies, float magnitude, int64_t positions) {
  Angles angles;
  angles.cosines.reserve(static_cast<size_t>(positions) * frequencies.size());
  angles.sines.reserve(angles.cosines.capacity());
  for (int64_t position = 0; position < positions; ++position) {
    for (const float frequency : frequencies) {
      // The angle is a float product, as trained models and HF transformers have it; only its cosine and sine are
      // exact.
      const float angle = static_cast<float>(position) * frequency;
      angles.cosines.push_back(magnitude * static_cast<float>(std::cos(static_cast<double>(angle))));
      angles.sines.push_back(magnitude * static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
  return angles;
}

/// What each head adds to the score of each position, [q_heads, positions]: slope times position, in bf16 as Falcon
/// was trained, then scaled as the scores are.
std::vector<float> AlibiBiases(const DecoderSpec& spec, int64_t positions) {
  std::vector<float> biases;
  biases.reserve(spec.alibi_slopes.size() * static_cast<size_t>(positions));
  for (const float slope : spec.alibi_slopes) {
    for (int64_t position = 0; position < positions; ++position) {
      const BFloat16 rounded(static_cast<float>(position));
      const BFloat16 bias(static_cast<float>(BFloat16(slope)) * static_cast<float>(rounded));
      biases.push_back(spec.attention_scale * static_cast<float>(bias));
    }
  }
  return biases;
}

}  // namespace

size_t Decoder::PositionBytes(int64_t positions) const {
  const size_t angles = 2 * spec_.rope.inverse_frequencies.size();
  return static_cast<size_t>(positions) * (angles + spec_.alibi_slopes.size()) * sizeof(float);
}

PositionTables Decoder::MakePositions(Ops& ops, int64_t positions, bool long_sequence) const {
  CHECK_GT(positions, 0);
  PositionTables tables;
  tables.positions = positions;
  const std::unique_ptr<Stream> stream = ops.device().NewStream();
  const RopeSpec& rope = spec_.rope;
  const bool use_long = long_sequence && !rope.long_inverse_frequencies.empty();
  const std::vector<float>& frequencies = use_long ? rope.long_inverse_frequencies : rope.inverse_frequencies;
  if (!frequencies.empty()) {
    const Angles angles = MakeAngles(frequencies, rope.magnitude, positions);
    const Shape shape{positions, std::ssize(frequencies)};
    tables.rope = RopeTable{CopyToDevice(ops.device(), *stream, angles.cosines, shape),
                            CopyToDevice(ops.device(), *stream, angles.sines, shape)};
  }
  if (!spec_.alibi_slopes.empty()) {
    const std::vector<float> biases = AlibiBiases(spec_, positions);
    tables.key_bias = CopyToDevice(ops.device(), *stream, biases, {spec_.q_heads, positions});
  }
  return tables;
}

}  // namespace runahead
