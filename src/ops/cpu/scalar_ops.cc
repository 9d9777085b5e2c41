// The oracle: every operation as its definition reads, in double precision, rounded once to the dtype of the result.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/checks.h"
#include "ops/cpu/quantise.h"
#include "ops/ops.h"

namespace runahead {
namespace {

/// Element `column` of row `row`; the dimensions inside a row count as one.
double Get(const TensorView& view, int64_t row, int64_t column) {
  return Dispatch(view.dtype(), [&](auto zero) {
    using T = decltype(zero);
    return static_cast<double>(static_cast<float>(view.As<T>()[row * view.row_stride() + column]));
  });
}

void Set(const TensorView& view, int64_t row, int64_t column, double value) {
  Dispatch(view.dtype(), [&](auto zero) {
    using T = decltype(zero);
    view.As<T>()[row * view.row_stride() + column] = T(static_cast<float>(value));
  });
}

/// Element `i` of a vector, which is stored as one row or one element per row.
double GetFlat(const TensorView& view, int64_t i) {
  return view.shape().rank() == 1 ? Get(view, i, 0) : Get(view, 0, i);
}

double RoundTo(DType dtype, double value) {
  return Dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    return static_cast<double>(static_cast<float>(T(static_cast<float>(value))));
  });
}

double Activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x * std::sqrt(0.5));
    case Activation::kGeluTanh:
      // 0.5 (1 + tanh u) = 1 / (1 + e^-2u), which does not cancel.
      return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kReluSquared:
      return std::max(x, 0.0) * std::max(x, 0.0);
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown activation");
}

/// Weights as integers, or rounded to the compute dtype as rows of doubles.
class ScalarLinear final : public Linear {
 public:
  struct Part {
    int64_t rows = 0;
    std::vector<double> weights;              // [rows, in_features], of kStored
    std::vector<cpu::QuantisedRow> integers;  // [rows], of other formats
    std::vector<double> biases;               // [rows], or empty
  };

  ScalarLinear(const std::vector<LinearPart>& parts, DType compute, WeightFormat format)
      : in_features_(parts.front().weights.front().row_elements()), compute_(compute), format_(format) {
    for (const LinearPart& part : parts) parts_.push_back(Convert(part));
  }

  [[nodiscard]] int64_t in_features() const override { return in_features_; }
  [[nodiscard]] int parts() const override { return static_cast<int>(parts_.size()); }
  [[nodiscard]] int64_t out_features(int first, int count) const override {
    int64_t sum = 0;
    for (int i = first; i < first + count; ++i) sum += part(i).rows;
    return sum;
  }
  [[nodiscard]] const Part& part(int i) const { return parts_[static_cast<size_t>(i)]; }
  [[nodiscard]] DType compute() const { return compute_; }
  [[nodiscard]] WeightFormat format() const { return format_; }

 private:
  [[nodiscard]] Part Convert(const LinearPart& part) const {
    Part result;
    for (size_t m = 0; m < part.weights.size(); ++m) {
      const TensorView& matrix = part.weights[m];
      result.rows += matrix.rows();
      for (int64_t i = 0; i < matrix.rows(); ++i) {
        if (format_ != WeightFormat::kStored) result.integers.push_back(Quantised(matrix, i));
        for (int64_t j = 0; j < in_features_; ++j) result.weights.push_back(RoundTo(compute_, Get(matrix, i, j)));
        if (!part.biases.empty()) result.biases.push_back(GetFlat(part.biases[m], i));
      }
    }
    return result;
  }

  [[nodiscard]] cpu::QuantisedRow Quantised(const TensorView& matrix, int64_t index) const {
    std::vector<float> values(static_cast<size_t>(in_features_));
    for (int64_t j = 0; j < in_features_; ++j) {
      values[static_cast<size_t>(j)] = static_cast<float>(Get(matrix, index, j));
    }
    cpu::QuantisedRow row;
    CHECK_EQ(cpu::QuantiseWeights(format_, values.data(), in_features_, row), int64_t{-1});
    return row;
  }

  int64_t in_features_;
  DType compute_;
  WeightFormat format_;
  std::vector<Part> parts_;
};

/// A row of activations as integers.
struct ScalarRow {
  std::vector<int> codes;     // [in_features]
  std::vector<float> scales;  // [blocks]

  ScalarRow(const TensorView& x, int64_t row) {
    for (int64_t begin = 0; begin < x.row_elements(); begin += kBlockDepth) {
      const int64_t end = std::min(begin + kBlockDepth, x.row_elements());
      float largest = 0;
      for (int64_t k = begin; k < end; ++k) {
        const auto magnitude = static_cast<float>(std::abs(Get(x, row, k)));
        largest = std::isfinite(magnitude) ? std::max(largest, magnitude) : std::numeric_limits<float>::quiet_NaN();
        if (std::isnan(largest)) break;
      }
      const bool zeros = std::isnan(largest) || largest < 0x1p-100f;
      scales.push_back(zeros && !std::isnan(largest) ? 0 : largest / 127);
      const float factor = zeros ? 0 : 127 / largest;
      for (int64_t k = begin; k < end; ++k) {
        codes.push_back(zeros ? 0 : static_cast<int>(std::nearbyint(static_cast<float>(Get(x, row, k)) * factor)));
      }
    }
  }

  /// The product with a row of weights, added up as the contract of formats says.
  [[nodiscard]] float Times(const cpu::QuantisedRow& weights) const {
    float sum = 0;
    for (size_t block = 0; block < scales.size(); ++block) {
      int64_t integers = 0;
      const size_t end = std::min(codes.size(), (block + 1) * kBlockDepth);
      for (size_t k = block * kBlockDepth; k < end; ++k) integers += int64_t{codes[k]} * weights.codes[k];
      sum = std::fma(static_cast<float>(integers), weights.scales[block] * scales[block], sum);
    }
    return sum;
  }
};

class ScalarOps final : public Ops {
 public:
  explicit ScalarOps(Device& device) : device_(device) {}

  [[nodiscard]] Device& device() override { return device_; }

  Tensor Upload(TensorView host) override { return {Buffer(), host}; }

  using Ops::Prepare;
  std::unique_ptr<Linear> Prepare(const std::vector<LinearPart>& parts, DType compute, WeightFormat format) override {
    CheckParts(parts);
    CHECK(format != WeightFormat::kFp8);  // no CPU has it
    return std::make_unique<ScalarLinear>(parts, compute, format);
  }

  void Embed(std::span<const int32_t> tokens, TensorView table, float scale, TensorView out,
             Stream& /*stream*/) override {
    CheckEmbed(tokens, table, out);
    for (int64_t i = 0; i < out.rows(); ++i) {
      for (int64_t j = 0; j < out.row_elements(); ++j) {
        Set(out, i, j, double{scale} * Get(table, tokens[static_cast<size_t>(i)], j));
      }
    }
  }

  void Normalize(TensorView x, const Norm& norm, TensorView out, Stream& /*stream*/) override {
    CheckNormalize(x, norm, out);
    const int64_t features = x.row_elements();
    std::vector<double> row(static_cast<size_t>(features));
    for (int64_t i = 0; i < x.rows(); ++i) {
      for (int64_t j = 0; j < features; ++j) row[static_cast<size_t>(j)] = Get(x, i, j);
      NormalizeRow(norm, 0, row);
      for (int64_t j = 0; j < features; ++j) Set(out, i, j, row[static_cast<size_t>(j)]);
    }
  }

  void Matmul(TensorView x, const Linear& linear, int first, int count, TensorView y, Stream& /*stream*/) override {
    const auto& scalar = static_cast<const ScalarLinear&>(linear);
    CheckMatmul(x, linear, scalar.compute(), first, count, y);
    if (scalar.format() != WeightFormat::kStored) return MultiplyIntegers(x, scalar, first, count, y);
    const int64_t in_features = linear.in_features();
    for (int64_t i = 0; i < x.rows(); ++i) {
      int64_t column = 0;
      for (int p = first; p < first + count; ++p) {
        const ScalarLinear::Part& part = scalar.part(p);
        for (int64_t j = 0; j < part.rows; ++j, ++column) {
          double sum = part.biases.empty() ? 0 : part.biases[static_cast<size_t>(j)];
          for (int64_t k = 0; k < in_features; ++k) {
            sum += Get(x, i, k) * part.weights[static_cast<size_t>(j * in_features + k)];
          }
          Set(y, i, column, sum);
        }
      }
    }
  }

  void Add(TensorView x, TensorView delta, Stream& /*stream*/) override {
    CheckAdd(x, delta);
    for (int64_t i = 0; i < x.rows(); ++i) {
      for (int64_t j = 0; j < x.row_elements(); ++j) Set(x, i, j, Get(x, i, j) + Get(delta, i, j));
    }
  }

  void PrepareQueries(TensorView q, const HeadSteps& steps, int64_t position, Stream& /*stream*/) override {
    CheckHeads(q, steps, position);
    StepInto(q, steps, position, q);
  }

  void AppendKv(TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows, Stream& /*stream*/) override {
    CheckAppendKv(k, v, steps, rows);
    StepInto(k, steps, rows.begin, rows.k);
    for (int64_t i = 0; i < v.rows(); ++i) {
      for (int64_t j = 0; j < v.row_elements(); ++j) Set(rows.v, i, j, Get(v, i, j));
    }
  }

  void Attention(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options, TensorView out,
                 Stream& /*stream*/) override {
    CheckAttention(q, position, keys, options, out);
    const int64_t heads = q.shape()[1];
    for (int64_t i = 0; i < q.rows(); ++i) {
      for (int64_t h = 0; h < heads; ++h) AttendOne(q, position + i, keys, options, i, h, out);
    }
  }

  void GatedActivation(Activation activation, TensorView gate_up, TensorView out, Stream& /*stream*/) override {
    CheckGatedActivation(gate_up, out);
    const int64_t features = out.row_elements();
    for (int64_t i = 0; i < out.rows(); ++i) {
      for (int64_t j = 0; j < features; ++j) {
        Set(out, i, j, Activated(activation, Get(gate_up, i, j)) * Get(gate_up, i, features + j));
      }
    }
  }

  void Activate(Activation activation, TensorView x, TensorView out, Stream& /*stream*/) override {
    CheckActivate(x, out);
    for (int64_t i = 0; i < out.rows(); ++i) {
      for (int64_t j = 0; j < out.row_elements(); ++j) Set(out, i, j, Activated(activation, Get(x, i, j)));
    }
  }

  [[nodiscard]] Abilities abilities() const override { return kCpuAbilities; }
  void AddMixture(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
                  TensorView sum, Stream& stream) override {
    CheckMixture(x, scores, mixture, memory, sum);
    for (int64_t i = 0; i < x.rows(); ++i) {
      const std::vector<double> weights = WeightsOfExperts(scores, mixture, i);
      std::vector<double> total(static_cast<size_t>(x.row_elements()));
      for (size_t e = 0; e < weights.size(); ++e) {
        if (weights[e] == 0) continue;
        const Expert& expert = mixture.experts[e];
        const int64_t ffn = expert.down->in_features();
        const TensorView activated = memory.activated.Rows(0, 1).Columns(0, ffn);
        const TensorView product = memory.product.Rows(0, 1).Columns(0, 2 * ffn);
        MatmulActivate(x.Rows(i, i + 1), *expert.gate_up, mixture.activation, product, activated, stream);
        if (mixture.clamped.limit > 0) ApplyClampedGate(mixture.clamped, product, activated);
        const TensorView result = memory.results.Rows(0, 1);
        Ops::Matmul(activated, *expert.down, result, stream);
        for (size_t j = 0; j < total.size(); ++j) total[j] += weights[e] * Get(result, 0, static_cast<int64_t>(j));
      }
      for (size_t j = 0; j < total.size(); ++j) {
        const auto column = static_cast<int64_t>(j);
        Set(sum, i, column, Get(sum, i, column) + total[j]);
      }
    }
  }

  void Softcap(TensorView x, float cap, Stream& /*stream*/) override {
    CheckSoftcap(x, cap);
    for (int64_t i = 0; i < x.rows(); ++i) {
      for (int64_t j = 0; j < x.row_elements(); ++j) Set(x, i, j, cap * std::tanh(Get(x, i, j) / cap));
    }
  }

 private:
  static void MultiplyIntegers(TensorView x, const ScalarLinear& linear, int first, int count, TensorView y) {
    for (int64_t i = 0; i < x.rows(); ++i) {
      const ScalarRow row(x, i);
      int64_t column = 0;
      for (int p = first; p < first + count; ++p) {
        const ScalarLinear::Part& part = linear.part(p);
        for (size_t j = 0; j < part.integers.size(); ++j, ++column) {
          const float bias = part.biases.empty() ? 0 : static_cast<float>(part.biases[j]);
          Set(y, i, column, row.Times(part.integers[j]) + bias);
        }
      }
    }
  }

  static void ApplyClampedGate(const ClampedGate& clamped, TensorView product, TensorView out) {
    for (int64_t j = 0; j < out.row_elements(); ++j) {
      const double limit = clamped.limit;
      const double gate = std::min(Get(product, 0, j), limit);
      const double up = std::clamp(Get(product, 0, out.row_elements() + j), -limit, limit);
      Set(out, 0, j, (up + 1) * gate / (1 + std::exp(-static_cast<double>(clamped.slope) * gate)));
    }
  }

  /// The indices of the `count` largest numbers, of equal ones the first.
  static std::vector<size_t> Largest(const std::vector<double>& numbers, int64_t count) {
    std::vector<size_t> order(numbers.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return numbers[a] > numbers[b]; });
    order.resize(static_cast<size_t>(count));
    return order;
  }

  /// `ranks` with those of groups that are not chosen below all others.
  static std::vector<double> LimitedToGroups(const std::vector<double>& ranks, const Routing& routing) {
    const auto size = static_cast<std::ptrdiff_t>(ranks.size()) / routing.groups;
    std::vector<double> groups;
    for (int64_t g = 0; g < routing.groups; ++g) {
      const std::vector<double> own(ranks.begin() + g * size, ranks.begin() + (g + 1) * size);
      double sum = 0;
      for (const size_t e : Largest(own, routing.group_best)) sum += own[e];
      groups.push_back(sum);
    }
    std::vector<double> limited(ranks.size(), -std::numeric_limits<double>::infinity());
    for (const size_t g : Largest(groups, routing.chosen_groups)) {
      const auto first = static_cast<std::ptrdiff_t>(g) * size;
      std::copy_n(ranks.begin() + first, size, limited.begin() + first);
    }
    return limited;
  }

  /// The weight of each expert for row `row` of x; 0 for those that it does not go through.
  static std::vector<double> WeightsOfExperts(TensorView scores, const Mixture& mixture, int64_t row) {
    std::vector<double> shares;
    for (int64_t e = 0; e < mixture.choices(); ++e) shares.push_back(Get(scores, row, e));
    const double largest = *std::max_element(shares.begin(), shares.end());
    double total = 0;
    for (double& share : shares) {
      share = mixture.routing.logistic ? 1 / (1 + std::exp(-share)) : std::exp(share - largest);
      total += share;
    }
    for (double& share : shares) share /= mixture.routing.logistic ? 1 : total;
    std::vector<double> ranks = shares;
    if (mixture.choice_bias.data() != nullptr) {
      for (size_t e = 0; e < ranks.size(); ++e) ranks[e] += GetFlat(mixture.choice_bias, static_cast<int64_t>(e));
    }
    const std::vector<size_t> order = Largest(LimitedToGroups(ranks, mixture.routing), mixture.chosen);
    total = 0;
    for (const size_t e : order) total += shares[e];
    std::vector<double> weights(mixture.experts.size());
    for (const size_t e : order) {
      weights[e] = shares[e] / (mixture.renormalise ? total : 1) * static_cast<double>(mixture.routing.scale);
    }
    const bool gated = scores.row_elements() > mixture.choices();
    if (mixture.shared) weights.back() = gated ? 1 / (1 + std::exp(-Get(scores, row, mixture.choices()))) : 1;
    return weights;
  }

  /// With the weights from `first` on.
  static void NormalizeRow(const Norm& norm, int64_t first, std::vector<double>& row) {
    const auto n = static_cast<double>(row.size());
    const double mean = norm.kind == NormKind::kLayer ? std::accumulate(row.begin(), row.end(), 0.0) / n : 0.0;
    double squares = 0;
    for (const double value : row) squares += (value - mean) * (value - mean);
    const double scale = 1 / std::sqrt(squares / n + norm.epsilon);
    for (size_t j = 0; j < row.size(); ++j) {
      const int64_t column = first + static_cast<int64_t>(j);
      row[j] = (row[j] - mean) * scale * GetFlat(norm.weight.view, column);
      if (norm.bias.view.data() != nullptr) row[j] += GetFlat(norm.bias.view, column);
    }
  }

  /// Each head of `from` after `steps`, which is rounded after each of them, into `to`.
  static void StepInto(TensorView from, const HeadSteps& steps, int64_t position, TensorView to) {
    const int64_t head_dim = from.shape()[2];
    std::vector<double> head(static_cast<size_t>(head_dim));
    const bool own_weights = steps.norm != nullptr && steps.norm->weight.view.shape().elements() != head_dim;
    for (int64_t i = 0; i < from.rows(); ++i) {
      for (int64_t base = 0; base < from.row_elements(); base += head_dim) {
        for (int64_t j = 0; j < head_dim; ++j) head[static_cast<size_t>(j)] = Get(from, i, base + j);
        if (steps.norm != nullptr) {
          NormalizeRow(*steps.norm, own_weights ? base : 0, head);
          for (double& value : head) value = RoundTo(from.dtype(), value);
        }
        if (steps.rope != nullptr) RotateHead(*steps.rope, position + i, head);
        for (int64_t j = 0; j < head_dim; ++j) Set(to, i, base + j, head[static_cast<size_t>(j)]);
      }
    }
  }

  static void RotateHead(const RopeTable& rope, int64_t position, std::vector<double>& head) {
    const auto half = static_cast<size_t>(rope.rotary_dim() / 2);
    for (size_t j = 0; j < half; ++j) {
      const double a = head[j];
      const double b = head[half + j];
      const double cosine = Get(rope.cos.view, position, static_cast<int64_t>(j));
      const double sine = Get(rope.sin.view, position, static_cast<int64_t>(j));
      head[j] = a * cosine - b * sine;
      head[half + j] = b * cosine + a * sine;
    }
  }

  static void AttendOne(TensorView q, int64_t own, const KvRows& keys, const AttentionOptions& options, int64_t row,
                        int64_t head, TensorView out) {
    const int64_t kv_head = head / (q.shape()[1] / keys.k.shape()[1]);
    const auto product = [&](TensorView queries, TensorView of, int64_t position) {
      const int64_t features = of.shape()[2];
      double dot = 0;
      for (int64_t d = 0; d < features; ++d) {
        dot += Get(queries, row, head * features + d) * Get(of, keys.RowOf(position), kv_head * features + d);
      }
      return dot;
    };
    const bool latent = options.rotated.data() != nullptr;
    const int64_t begin = FirstVisible(own, options.window);

    std::vector<double> scores;  // [own + 1 - begin]
    for (int64_t j = begin; j <= own; ++j) {
      double score = options.scale *
                     (latent ? product(q, keys.v, j) + product(options.rotated, keys.k, j) : product(q, keys.k, j));
      if (options.softcap > 0) score = options.softcap * std::tanh(score / options.softcap);
      if (options.key_bias.data() != nullptr) score += Get(options.key_bias, head, j);
      scores.push_back(score);
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double total = options.sinks.data() == nullptr ? 0 : std::exp(GetFlat(options.sinks, head) - largest);
    for (double& score : scores) total += score = std::exp(score - largest);
    const int64_t features = keys.v.shape()[2];
    for (int64_t d = 0; d < features; ++d) {
      double sum = 0;
      for (int64_t j = begin; j <= own; ++j) {
        sum += scores[static_cast<size_t>(j - begin)] * Get(keys.v, keys.RowOf(j), kv_head * features + d);
      }
      Set(out, row, head * features + d, sum / total);
    }
  }

  Device& device_;
};

}  // namespace

std::unique_ptr<Ops> MakeScalarOps(Device& device) { return std::make_unique<ScalarOps>(device); }

}  // namespace runahead
