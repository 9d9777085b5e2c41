// Rotary position embeddings as config.json describes them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/architectures/common.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int64_t kMaxPositions = INT32_MAX;

double Positive(const JsonObject& object, const char* key, double value, double max) {
  // Far below, angles would leave the range of floats.
  if (!(value >= 1 / max && value <= max)) {
    throw ConfigError(
        fmt::format("{}: {}: expected a number from {} to {}, got {}", object.origin(), key, 1 / max, max, value));
  }
  return value;
}

/// inverse_frequency[i] = 1 / theta^(2i / rotary_dim) (Su et al. 2021, section 3.2.2).
std::vector<float> InverseFrequencies(double theta, int64_t rotary_dim) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rotary_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rotary_dim);
    frequencies.push_back(1.0F / std::pow(static_cast<float>(theta), exponent));
  }
  return frequencies;
}

/// Scaling of Llama 3.1 ("The Llama 3 Herd of Models", 2024, and its reference code): waves much shorter than the
/// trained context stay, much longer ones are divided by `factor`, those between are blended.
void ScaleLlama3(const JsonObject& rope, int64_t trained_positions, std::vector<float>& frequencies) {
  const double factor = Positive(rope, "factor", rope.Number("factor"), 1e6);
  const double low = Positive(rope, "low_freq_factor", rope.Number("low_freq_factor"), 1e6);
  const double high = Positive(rope, "high_freq_factor", rope.Number("high_freq_factor"), 1e6);
  if (high <= low) rope.Refuse("high_freq_factor", "expected more than low_freq_factor");
  const auto trained = static_cast<double>(trained_positions);
  const auto longest = static_cast<float>(trained / low);
  const auto shortest = static_cast<float>(trained / high);
  for (float& frequency : frequencies) {
    const float wave = static_cast<float>(2 * M_PI) / frequency;
    const auto divisor = static_cast<float>(factor);
    if (wave > longest) {
      frequency /= divisor;
    } else if (!(wave < shortest)) {
      const float blend =
          (static_cast<float>(trained) / wave - static_cast<float>(low)) / static_cast<float>(high - low);
      frequency = (1 - blend) * frequency / divisor + blend * frequency;
    }
  }
}

/// One positive factor for each of `frequencies`.
std::vector<float> LongRopeFactors(const JsonObject& rope, const char* key, size_t frequencies) {
  const Json& factors = rope.At(key);
  const std::string expected = fmt::format("expected {} positive numbers", frequencies);
  if (!factors.is_array() || factors.size() != frequencies) rope.Refuse(key, expected);
  std::vector<float> values;
  for (const Json& factor : factors) {
    if (!factor.is_number()) rope.Refuse(key, expected);
    const auto value = factor.get<float>();
    if (!(value > 0 && std::isfinite(value))) rope.Refuse(key, expected);
    values.push_back(value);
  }
  return values;
}

/// LongRoPE (Ding et al. 2024) as Phi-3 has it: each frequency is divided by its own factor, one list for sequences
/// up to the trained length and one for longer ones.
void ScaleLongRope(const JsonObject& config, const JsonObject& rope, int64_t max_positions, RopeSpec& spec) {
  // A configuration without the field has the first Phi-3's.
  constexpr int64_t kDefaultTrained = 4096;
  const int64_t trained = config.Int("original_max_position_embeddings", 2, kMaxPositions, kDefaultTrained);
  const size_t count = spec.inverse_frequencies.size();
  const std::vector<float> shorter = LongRopeFactors(rope, "short_factor", count);
  const std::vector<float> longer = LongRopeFactors(rope, "long_factor", count);
  spec.short_positions = trained;
  for (size_t i = 0; i < count; ++i) {
    const float power = 1 / spec.inverse_frequencies[i];
    spec.inverse_frequencies[i] = 1 / (shorter[i] * power);
    spec.long_inverse_frequencies.push_back(1 / (longer[i] * power));
  }
  const double stretch = static_cast<double>(max_positions) / static_cast<double>(trained);
  const double factor = Positive(rope, "factor", rope.Number("factor", stretch), 1e6);
  const double magnitude = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(trained)));
  spec.magnitude =
      static_cast<float>(Positive(rope, "attention_factor", rope.Number("attention_factor", magnitude), 1e3));
}

/// YaRN (Peng et al. 2023, section 3.2 and its reference code): frequencies that turn often within the trained
/// context stay, those that hardly turn are divided by `factor`, those between are blended by a ramp over their
/// index; the attention's scale grows with the logarithm of the factor.
void ScaleYarn(const JsonObject& rope, double theta, int64_t trained_positions, RopeSpec& spec) {
  if (!(theta > 1)) {
    throw ConfigError(fmt::format("{}: rope_theta: expected more than 1 with yarn, got {}", rope.origin(), theta));
  }
  const double factor = Positive(rope, "factor", rope.Number("factor"), 1e6);
  const double fast = Positive(rope, "beta_fast", rope.Number("beta_fast", 32), 1e6);
  const double slow = Positive(rope, "beta_slow", rope.Number("beta_slow", 1), 1e6);
  const auto dim = static_cast<double>(2 * spec.inverse_frequencies.size());
  // The index, not whole, of the frequency that turns so many times within the trained context.
  const auto index_of = [&](double turns) {
    return dim * std::log(static_cast<double>(trained_positions) / (turns * 2 * M_PI)) / (2 * std::log(theta));
  };
  const bool whole = rope.Bool("truncate", true);
  const double first = std::max(0.0, whole ? std::floor(index_of(fast)) : index_of(fast));
  double last = std::min(dim - 1, whole ? std::ceil(index_of(slow)) : index_of(slow));
  if (first == last) last += 0.001;
  for (size_t i = 0; i < spec.inverse_frequencies.size(); ++i) {
    const auto ramp = static_cast<float>(std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0));
    float& frequency = spec.inverse_frequencies[i];
    frequency = frequency / static_cast<float>(factor) * ramp + frequency * (1 - ramp);
  }
  const auto magnitude = [factor](double scale) { return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1; };
  const bool both = rope.Has("mscale") && rope.Has("mscale_all_dim");
  const double usual =
      both ? magnitude(rope.Number("mscale")) / magnitude(rope.Number("mscale_all_dim")) : magnitude(1);
  spec.magnitude =
      static_cast<float>(Positive(rope, "attention_factor", rope.Number("attention_factor", usual), 1e3));
}

/// The context of a rope that stretches `trained_positions` by `factor`; config.json may name a longer one.
int64_t Stretched(int64_t trained_positions, double factor, int64_t max_positions) {
  const double stretched = static_cast<double>(trained_positions) * factor;
  return std::max(max_positions, static_cast<int64_t>(std::min(stretched, static_cast<double>(kMaxPositions))));
}

void ScaleRope(const JsonObject& config, const JsonObject& rope, double theta, bool longrope, DecoderSpec& spec) {
  constexpr const char* kTrained = "original_max_position_embeddings";
  const char* type_key = rope.Has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.String(type_key, "default");
  if (longrope && (type == "longrope" || type == "su" || type == "yarn")) {  // Phi-3's earlier names for it
    return ScaleLongRope(config, rope, spec.max_positions, spec.rope);
  }
  const auto trained = [&](const JsonObject& holder) {
    return holder.Int(kTrained, 1, kMaxPositions, spec.max_positions);
  };
  if (type == "linear") {
    const double factor = Positive(rope, "factor", rope.Number("factor"), 1e6);
    for (float& frequency : spec.rope.inverse_frequencies) frequency /= static_cast<float>(factor);
    spec.max_positions = Stretched(trained(rope), factor, spec.max_positions);
  } else if (type == "yarn") {
    ScaleYarn(rope, theta, trained(rope), spec.rope);
    spec.max_positions = Stretched(trained(rope), rope.Number("factor"), spec.max_positions);
  } else if (type == "llama3") {
    ScaleLlama3(rope, trained(config.Has(kTrained) ? config : rope), spec.rope.inverse_frequencies);
  } else if (type != "default") {
    rope.Refuse(type_key, longrope ? "expected default, linear, llama3 or longrope"
                                   : "expected default, linear, llama3 or yarn");
  }
}

/// Features of a head that turn.
int64_t RotaryDim(const JsonObject& config, const JsonObject* rope, int64_t head_dim, const RopeFields& fields) {
  constexpr const char* kInside = "partial_rotary_factor";
  const bool inside = rope != nullptr && rope->Has(kInside);
  const JsonObject& holder = inside ? *rope : config;
  const char* key = inside ? kInside : fields.partial_factor;
  const double factor = holder.Number(key, fields.default_partial_factor);
  if (!fields.partial && factor != 1) holder.Refuse(key, "expected 1 for this architecture");
  const auto rotary_dim = static_cast<int64_t>(static_cast<double>(head_dim) * factor);
  // An odd number turns one feature more, as in HF transformers.
  if (!(factor > 0 && factor <= 1) || rotary_dim < 1 || rotary_dim + rotary_dim % 2 > head_dim) {
    throw ConfigError(fmt::format("{}: {}: expected a part above 0 of the {} features of a head, got {}",
                                  holder.origin(), key, head_dim, factor));
  }
  return rotary_dim;
}

}  // namespace

void ParseRope(const JsonObject& config, DecoderSpec& spec, const RopeFields& fields) {
  constexpr double kMaxTheta = 1e18;
  // The order of HF transformers: rope_scaling takes the place of rope_parameters, whose theta comes before the
  // outer.
  const bool old_form = config.Has("rope_scaling") && !config.At("rope_scaling").empty();
  const char* key = old_form ? "rope_scaling" : "rope_parameters";
  double theta = Positive(config, fields.theta, config.Number(fields.theta, 10000), kMaxTheta);
  if (!config.Has(key)) {
    spec.rope = {InverseFrequencies(theta, RotaryDim(config, nullptr, spec.head_dim, fields)), 1, {}, 0};
    return;
  }
  const JsonObject rope = config.Object(key);
  for (const auto& [name, value] : rope.json().items()) {
    if (value.is_object()) rope.Refuse(name.c_str(), "expected one rope for all layers");
  }
  theta = Positive(rope, "rope_theta", rope.Number("rope_theta", theta), kMaxTheta);
  spec.rope = {InverseFrequencies(theta, RotaryDim(config, &rope, spec.head_dim, fields)), 1, {}, 0};
  ScaleRope(config, rope, theta, fields.longrope, spec);
}

}  // namespace runahead
