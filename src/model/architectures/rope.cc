// Rotary position embeddings as config.json describes them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "model/architectures/common.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr double kMaxTheta = 1e18;

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

/// What a rope is read from: its own object, where there is one, and config.json around it.
struct RopeSource {
  const JsonObject& config;
  const JsonObject* rope;  // null: all is in config.json
  double theta;
  int64_t positions;  // max_position_embeddings
  const RopeFields& fields;

  /// The context that the model was trained for; transformers looks outside first.
  [[nodiscard]] int64_t Trained() const {
    constexpr const char* kTrained = "original_max_position_embeddings";
    if (config.Has(kTrained)) return config.Int(kTrained, 1, kMaxPositions);
    const int64_t otherwise = fields.default_trained != 0 ? fields.default_trained : positions;
    return rope->Int(kTrained, 1, kMaxPositions, otherwise);
  }
  /// The factor of the rope, or how far the context is beyond the trained one.
  [[nodiscard]] double FactorOrStretch() const {
    const double stretch = static_cast<double>(positions) / static_cast<double>(Trained());
    return rope->Has("factor") ? Positive(*rope, "factor", rope->Number("factor"), 1e6) : stretch;
  }
  [[nodiscard]] float Magnitude(double usual) const {
    return static_cast<float>(Positive(*rope, "attention_factor", rope->Number("attention_factor", usual), 1e3));
  }
};

/// LongRoPE (Ding et al. 2024) as Phi-3 has it: each frequency is divided by its own factor, one list for sequences
/// up to the trained length and one for longer ones.
void ScaleLongRope(const RopeSource& source, RopeSpec& spec) {
  const int64_t trained = source.Trained();
  if (trained < 2) source.config.Refuse("original_max_position_embeddings", "expected at least 2");
  const size_t count = spec.inverse_frequencies.size();
  const std::vector<float> shorter = LongRopeFactors(*source.rope, "short_factor", count);
  const std::vector<float> longer = LongRopeFactors(*source.rope, "long_factor", count);
  spec.short_positions = trained;
  for (size_t i = 0; i < count; ++i) {
    const float power = 1 / spec.inverse_frequencies[i];
    spec.inverse_frequencies[i] = 1 / (shorter[i] * power);
    spec.long_inverse_frequencies.push_back(1 / (longer[i] * power));
  }
  const double factor = source.FactorOrStretch();
  spec.magnitude =
      source.Magnitude(factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(trained))));
}

/// A setting of YaRN where 0, like null, means the usual value.
double YarnBound(const JsonObject& rope, const char* key, double usual) {
  const double value = rope.Number(key, usual);
  return value == 0 ? usual : Positive(rope, key, value, 1e6);
}

/// YaRN (Peng et al. 2023, section 3.2 and its reference code): frequencies that turn often within the trained
/// context stay, those that hardly turn are divided by `factor`, those between are blended by a ramp over their
/// index; the attention's scale grows with the logarithm of the factor.
void ScaleYarn(const RopeSource& source, RopeSpec& spec) {
  const JsonObject& rope = *source.rope;
  if (!(source.theta > 1)) {
    throw ConfigError(
        fmt::format("{}: rope_theta: expected more than 1 with yarn, got {}", rope.origin(), source.theta));
  }
  if (source.positions == source.Trained()) (void)rope.Number("factor");
  const double factor = source.FactorOrStretch();
  const double fast = YarnBound(rope, "beta_fast", 32);
  const double slow = YarnBound(rope, "beta_slow", 1);
  const auto dim = static_cast<double>(2 * spec.inverse_frequencies.size());
  // The index, not whole, of the frequency that turns so many times within the trained context.
  const auto index_of = [&](double turns) {
    return dim * std::log(static_cast<double>(source.Trained()) / (turns * 2 * M_PI)) / (2 * std::log(source.theta));
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
  const double scale = rope.Number("mscale", 0);
  const double scale_of_all = rope.Number("mscale_all_dim", 0);
  spec.magnitude = source.Magnitude(scale != 0 && scale_of_all != 0
                                        ? YarnMagnitude(factor, scale) / YarnMagnitude(factor, scale_of_all)
                                        : YarnMagnitude(factor, 1));
}

/// The context of a rope that stretches `trained_positions` by `factor`; config.json may name a longer one.
int64_t Stretched(int64_t trained_positions, double factor, int64_t max_positions) {
  const double stretched = static_cast<double>(trained_positions) * factor;
  return std::max(max_positions, static_cast<int64_t>(std::min(stretched, static_cast<double>(kMaxPositions))));
}

/// Scales the plain frequencies in `spec` as the rope's type says. Returns the context that it reaches.
int64_t ScaleRope(const RopeSource& source, RopeSpec& spec) {
  const JsonObject& rope = *source.rope;
  const char* type_key = rope.Has("rope_type") ? "rope_type" : "type";
  std::string type = rope.String(type_key, "default");
  if (type == "su" || (type == "yarn" && source.fields.yarn_is_longrope)) type = "longrope";  // earlier names
  const auto factor = [&] { return Positive(rope, "factor", rope.Number("factor"), 1e6); };
  if (type == "linear") {
    for (float& frequency : spec.inverse_frequencies) frequency /= static_cast<float>(factor());
    return Stretched(source.Trained(), factor(), source.positions);
  }
  if (type == "dynamic") {
    const auto rotary_dim = static_cast<int64_t>(2 * spec.inverse_frequencies.size());
    if (rotary_dim < 4 || factor() < 1) rope.Refuse("factor", "expected at least 1, and heads that turn 4 features");
    spec.dynamic = {source.positions, factor(), source.theta, rotary_dim};
  } else if (type == "yarn") {
    ScaleYarn(source, spec);
    return Stretched(source.Trained(), source.FactorOrStretch(), source.positions);
  } else if (type == "longrope") {
    ScaleLongRope(source, spec);
  } else if (type == "llama3") {
    ScaleLlama3(rope, source.Trained(), spec.inverse_frequencies);
  } else if (type != "default") {
    rope.Refuse(type_key, "expected default, linear, dynamic, llama3, yarn or longrope");
  }
  return source.positions;
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

/// A rope from its object, or from config.json alone; `theta` is what is meant where the object names none.
RopeSpec ReadRope(const JsonObject& config, const JsonObject* rope, double theta, int64_t positions,
                  const RopeFields& fields, DecoderSpec& spec) {
  if (rope != nullptr) theta = Positive(*rope, "rope_theta", rope->Number("rope_theta", theta), kMaxTheta);
  RopeSpec read;
  read.inverse_frequencies = InverseFrequencies(theta, RotaryDim(config, rope, spec.head_dim, fields));
  if (rope == nullptr) return read;
  spec.max_positions = std::max(spec.max_positions, ScaleRope({config, rope, theta, positions, fields}, read));
  return read;
}

}  // namespace

double YarnMagnitude(double factor, double scale) { return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1; }

void ParseRope(const JsonObject& config, DecoderSpec& spec, const RopeFields& fields) {
  const int64_t positions = spec.max_positions;
  // The order of HF transformers: rope_scaling takes the place of rope_parameters, whose theta comes before the
  // outer.
  const bool old_form = config.Has("rope_scaling") && !config.At("rope_scaling").empty();
  const char* key = old_form ? "rope_scaling" : "rope_parameters";
  const double theta = Positive(config, fields.theta, config.Number(fields.theta, fields.default_theta), kMaxTheta);
  if (!config.Has(key)) {
    spec.rope = ReadRope(config, nullptr, theta, positions, fields, spec);
    return;
  }
  const JsonObject rope = config.Object(key);
  for (const auto& [name, value] : rope.json().items()) {
    if (value.is_object()) rope.Refuse(name.c_str(), "expected one rope for all layers");
  }
  spec.rope = ReadRope(config, &rope, theta, positions, fields, spec);
}

void ParseRopesByLayerType(const JsonObject& config, DecoderSpec& spec, const RopeFields& fields) {
  const int64_t positions = spec.max_positions;
  const double theta = Positive(config, fields.theta, config.Number(fields.theta, fields.default_theta), kMaxTheta);
  const char* local_key = fields.local_theta != nullptr ? fields.local_theta : fields.theta;
  const double local_theta =
      Positive(config, local_key, config.Number(local_key, fields.default_local_theta), kMaxTheta);
  spec.layer_ropes.clear();
  for (int layer = 0; layer < spec.layers; ++layer) {
    spec.layer_ropes.push_back(spec.window(layer) == 0 ? LayerRope::kMain : LayerRope::kLocal);
  }
  std::optional<JsonObject> full;
  std::optional<JsonObject> sliding;
  if (config.Has("rope_parameters")) {
    const JsonObject ropes = config.Object("rope_parameters");
    const bool nested = ropes.Has("full_attention") || ropes.Has("sliding_attention");
    if (ropes.Has("full_attention")) full.emplace(ropes.Object("full_attention"));
    if (ropes.Has("sliding_attention")) sliding.emplace(ropes.Object("sliding_attention"));
    if (!nested && !ropes.json().empty()) full.emplace(ropes);
  }
  if (config.Has("rope_scaling") && !config.At("rope_scaling").empty()) full.emplace(config.Object("rope_scaling"));
  spec.rope = ReadRope(config, full ? &*full : nullptr, theta, positions, fields, spec);
  spec.local_rope = ReadRope(config, sliding ? &*sliding : nullptr, local_theta, positions, fields, spec);
}

}  // namespace runahead
