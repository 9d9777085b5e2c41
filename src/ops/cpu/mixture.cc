#include "ops/cpu/mixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "ops/checks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/mixture.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

/// Rows [begin, end) of `out`. product: [rows, 2 * features], gate first; out: [rows, features].
void ClampedGateRange(const ClampedGate& clamped, const TensorView& product, const TensorView& out, int64_t begin,
                      int64_t end) {
  const FloatTag d;
  const auto n = static_cast<size_t>(out.row_elements());
  const auto one = hn::Set(d, 1.0f);
  const auto limit = hn::Set(d, clamped.limit);
  Dispatch(out.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = begin; i < end; ++i) {
      const T* gates = product.As<T>() + i * product.row_stride();
      const T* ups = gates + n;
      T* target = out.As<T>() + i * out.row_stride();
      ForVectors(d, n, [&](auto load, auto store) HWY_ATTR {
        const auto gate = hn::Min(load(gates), limit);
        const auto up = hn::Max(hn::Min(load(ups), limit), hn::Neg(limit));
        const auto logistic = hn::Div(one, hn::Add(one, Exp(d, hn::Mul(gate, hn::Set(d, -clamped.slope)))));
        store(hn::Mul(hn::Add(up, one), hn::Mul(gate, logistic)), target);
      });
    }
  });
}

/// Rows [begin, end) of `sum` plus the weighted rows of `results` that `slots` names. slots, weights: [rows, active].
void CombineRange(const TensorView& results, const int64_t* slots, const float* weights, int64_t active,
                  const TensorView& sum, int64_t begin, int64_t end) {
  const FloatTag d;
  Dispatch(sum.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = begin; i < end; ++i) {
      T* target = sum.As<T>() + i * sum.row_stride();
      const int64_t* slot = slots + i * active;
      const float* weight = weights + i * active;
      ForVectors(d, static_cast<size_t>(sum.row_elements()), [&](auto load, auto store) HWY_ATTR {
        auto total = hn::Zero(d);
        for (int64_t j = 0; j < active; ++j) {
          total = hn::MulAdd(hn::Set(d, weight[j]), load(results.As<T>() + slot[j] * results.row_stride()), total);
        }
        store(hn::Add(load(static_cast<const T*>(target)), total), target);
      });
    }
  });
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
namespace {

HWY_EXPORT(ClampedGateRange);
HWY_EXPORT(CombineRange);

/// The softmax of `scores`, which has room for it.
void Softmax(const float* scores, std::vector<float>& shares) {
  const float largest = *std::max_element(scores, scores + shares.size());
  float total = 0;
  for (size_t i = 0; i < shares.size(); ++i) total += shares[i] = std::exp(scores[i] - largest);
  for (float& share : shares) share /= total;
}

/// The logistic function of `scores`, of which there are as many as `shares` has room for.
void Logistic(const float* scores, std::vector<float>& shares) {
  for (size_t i = 0; i < shares.size(); ++i) shares[i] = 1 / (1 + std::exp(-scores[i]));
}

/// The indices of the `count` largest of `shares`, ascending. What is no number is never larger.
void ChooseLargest(const std::vector<float>& shares, int64_t count, int32_t* chosen) {
  const auto taken = [&](int64_t n, int32_t i) { return std::find(chosen, chosen + n, i) != chosen + n; };
  for (int64_t n = 0; n < count; ++n) {
    int32_t best = -1;
    for (int32_t i = 0; i < static_cast<int32_t>(shares.size()); ++i) {
      const bool larger = best < 0 || shares[static_cast<size_t>(i)] > shares[static_cast<size_t>(best)];
      if (larger && !taken(n, i)) best = i;
    }
    chosen[n] = best;
  }
  std::sort(chosen, chosen + count);
}

/// Takes what is in no chosen group out of the choice. `groups` and `chosen` are memory.
void KeepGroups(const Routing& routing, std::vector<float>& ranks, std::vector<float>& groups,
                std::vector<int32_t>& chosen) {
  const auto size = static_cast<std::ptrdiff_t>(ranks.size()) / routing.groups;
  groups.clear();
  for (int64_t g = 0; g < routing.groups; ++g) {
    std::vector<float> best(static_cast<size_t>(routing.group_best));
    std::partial_sort_copy(ranks.begin() + g * size, ranks.begin() + (g + 1) * size, best.begin(), best.end(),
                           std::greater<>());
    groups.push_back(std::accumulate(best.begin(), best.end(), 0.0f));
  }
  chosen.resize(static_cast<size_t>(routing.chosen_groups));
  ChooseLargest(groups, routing.chosen_groups, chosen.data());
  for (int64_t g = 0; g < routing.groups; ++g) {
    if (std::find(chosen.begin(), chosen.end(), static_cast<int32_t>(g)) != chosen.end()) continue;
    std::fill_n(ranks.begin() + g * size, size, -std::numeric_limits<float>::infinity());
  }
}

/// Chooses the experts of one row after the other. Holds its memory.
class Chooser {
 public:
  explicit Chooser(const Mixture& mixture)
      : mixture_(mixture), shares_(static_cast<size_t>(mixture.choices())), ranks_(shares_.size()) {}

  /// scores: [choices]; experts, weights: [chosen].
  void Choose(const float* scores, int32_t* experts, float* weights) {
    constexpr float kLeastTotal = 1e-20f;  // what DeepSeek-V3 adds, so that logistic shares of nothing stay 0
    const Routing& routing = mixture_.routing;
    routing.logistic ? Logistic(scores, shares_) : Softmax(scores, shares_);
    ranks_ = shares_;
    if (const float* biases = mixture_.choice_bias.As<float>(); mixture_.choice_bias.data() != nullptr) {
      for (size_t i = 0; i < ranks_.size(); ++i) ranks_[i] += biases[i];
    }
    if (routing.chosen_groups < routing.groups) KeepGroups(routing, ranks_, groups_, chosen_groups_);
    ChooseLargest(ranks_, mixture_.chosen, experts);
    float total = routing.logistic ? kLeastTotal : 0;
    for (int64_t j = 0; j < mixture_.chosen; ++j) total += weights[j] = shares_[static_cast<size_t>(experts[j])];
    const float divisor = mixture_.renormalise ? total : 1;
    std::for_each(weights, weights + mixture_.chosen, [&](float& w) { w = w / divisor * routing.scale; });
  }

 private:
  const Mixture& mixture_;
  std::vector<float> shares_;
  std::vector<float> ranks_;  // what the choice is by
  std::vector<float> groups_;
  std::vector<int32_t> chosen_groups_;
};

}  // namespace

void Mixer::Add(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
                TensorView sum) {
  Choose(scores, mixture);
  Sort(mixture, x.rows());
  const auto row_bytes = static_cast<size_t>(x.row_elements()) * SizeOf(x.dtype());
  for (size_t e = 0; e < mixture.experts.size(); ++e) {
    const int64_t first = begins_[e];
    const int64_t rows = begins_[e + 1] - first;
    if (rows == 0) continue;
    const TensorView results = memory.results.Rows(first, first + rows);
    if (rows == x.rows()) {
      Multiply(x, mixture.experts[e], mixture, memory, results);
      continue;
    }
    constexpr int64_t kWorthAThread = 16384;  // elements
    team_.RunRanges(rows, 1 + kWorthAThread / x.row_elements(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = row_of_[static_cast<size_t>(first + i)];
        std::memcpy(memory.gathered.Rows(i, i + 1).data(), x.Rows(row, row + 1).data(), row_bytes);
      }
    });
    Multiply(memory.gathered.Rows(0, rows), mixture.experts[e], mixture, memory, results);
  }
  Combine(mixture, memory.results, sum);
}

void Mixer::Choose(TensorView scores, const Mixture& mixture) {
  const int64_t choices = mixture.choices();
  const int64_t active = mixture.active();
  const bool gated = scores.row_elements() > choices;
  expert_of_.resize(static_cast<size_t>(scores.rows() * active));
  weights_.resize(expert_of_.size());
  constexpr int64_t kWorthAThread = 2048;  // scores
  team_.RunRanges(scores.rows(), 1 + kWorthAThread / choices, [&](int64_t begin, int64_t end) {
    Chooser chooser(mixture);
    for (int64_t row = begin; row < end; ++row) {
      const float* own = scores.As<float>() + row * scores.row_stride();
      int32_t* experts = expert_of_.data() + row * active;
      float* weights = weights_.data() + row * active;
      chooser.Choose(own, experts, weights);
      if (!mixture.shared) continue;
      experts[mixture.chosen] = static_cast<int32_t>(choices);
      weights[mixture.chosen] = gated ? 1 / (1 + std::exp(-own[choices])) : 1;
    }
  });
}

void Mixer::Sort(const Mixture& mixture, int64_t rows) {
  begins_.assign(mixture.experts.size() + 1, 0);
  for (const int32_t expert : expert_of_) ++begins_[static_cast<size_t>(expert) + 1];
  for (size_t e = 1; e < begins_.size(); ++e) begins_[e] += begins_[e - 1];
  std::vector<int64_t> next(begins_.begin(), begins_.end() - 1);
  slot_of_.resize(expert_of_.size());
  row_of_.resize(expert_of_.size());
  size_t pair = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t j = 0; j < mixture.active(); ++j, ++pair) {
      const int64_t slot = next[static_cast<size_t>(expert_of_[pair])]++;
      slot_of_[pair] = slot;
      row_of_[static_cast<size_t>(slot)] = row;
    }
  }
}

void Mixer::Multiply(TensorView x, const Expert& expert, const Mixture& mixture, const MixtureMemory& memory,
                     TensorView results) {
  constexpr int64_t kWorthAThread = 8192;  // elements
  const int64_t ffn = expert.down->in_features();
  const TensorView product = memory.product.Rows(0, x.rows()).Columns(0, 2 * ffn);
  const TensorView activated = memory.activated.Rows(0, x.rows()).Columns(0, ffn);
  if (mixture.clamped.limit > 0) {
    multiplier_.Multiply(x, *expert.gate_up, 0, expert.gate_up->parts(), product);
    team_.RunRanges(x.rows(), 1 + kWorthAThread / ffn, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(ClampedGateRange)(mixture.clamped, product, activated, begin, end);
    });
  } else {
    multiplier_.MultiplyActivate(x, *expert.gate_up, mixture.activation, product, activated);
  }
  multiplier_.Multiply(activated, *expert.down, 0, expert.down->parts(), results);
}

void Mixer::Combine(const Mixture& mixture, TensorView results, TensorView sum) {
  constexpr int64_t kWorthAThread = 8192;  // elements
  const int64_t active = mixture.active();
  team_.RunRanges(sum.rows(), 1 + kWorthAThread / (active * sum.row_elements()), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CombineRange)(results, slot_of_.data(), weights_.data(), active, sum, begin, end);
  });
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
