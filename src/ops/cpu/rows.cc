#include "ops/cpu/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/rows.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

void EmbedRange(std::span<const int32_t> tokens, const TensorView& table, float scale, const TensorView& out,
                int64_t begin, int64_t end) {
  const FloatTag d;
  const auto n = static_cast<size_t>(out.row_elements());
  Dispatch(table.dtype(), [&](auto table_zero) HWY_ATTR {
    Dispatch(out.dtype(), [&](auto out_zero) HWY_ATTR {
      using From = decltype(table_zero);
      using To = decltype(out_zero);
      const auto factor = hn::Set(d, scale);
      for (int64_t i = begin; i < end; ++i) {
        const From* source = table.As<From>() + tokens[static_cast<size_t>(i)] * table.row_stride();
        To* target = out.As<To>() + i * out.row_stride();
        ForVectors(d, n, [&](auto load, auto store) HWY_ATTR { store(hn::Mul(factor, load(source)), target); });
      }
    });
  });
}

/// The norm's statistics and the result, each in one pass over a row that stays in the cache.
template <typename T>
HWY_INLINE void NormalizeRow(FloatTag d, const T* x, const Norm& norm, T* out, size_t n, int64_t first_weight = 0) {
  const auto count = static_cast<float>(n);
  auto sum = hn::Zero(d);
  auto squares = hn::Zero(d);
  float mean = 0;
  if (norm.kind == NormKind::kLayer) {
    ForVectors(d, n, [&](auto load, auto) HWY_ATTR { sum = hn::Add(sum, load(x)); });
    mean = hn::GetLane(hn::SumOfLanes(d, sum)) / count;
    const auto center = hn::Set(d, mean);
    const size_t whole = n / hn::Lanes(d) * hn::Lanes(d);
    ForVectors(d, whole, [&](auto load, auto) HWY_ATTR {
      const auto centered = hn::Sub(load(x), center);
      squares = hn::MulAdd(centered, centered, squares);
    });
    ForVectors(d, n - whole, [&](auto load, auto) HWY_ATTR {
      const auto centered = hn::IfThenElseZero(hn::FirstN(d, n - whole), hn::Sub(load(x + whole), center));
      squares = hn::MulAdd(centered, centered, squares);
    });
  } else {
    ForVectors(d, n, [&](auto load, auto) HWY_ATTR {
      const auto value = load(x);
      squares = hn::MulAdd(value, value, squares);
    });
  }
  const float variance = hn::GetLane(hn::SumOfLanes(d, squares)) / count;
  const auto scale = hn::Div(hn::Set(d, 1.0f), hn::Sqrt(hn::Set(d, variance + norm.epsilon)));
  const auto center = hn::Set(d, mean);
  const float* weight = norm.weight.view.As<float>() + first_weight;
  const float* bias = norm.bias.view.data() != nullptr ? norm.bias.view.As<float>() + first_weight : nullptr;
  ForVectors(d, n, [&](auto load, auto store) HWY_ATTR {
    const auto normal = hn::Mul(hn::Sub(load(x), center), scale);
    store(bias != nullptr ? hn::MulAdd(normal, load(weight), load(bias)) : hn::Mul(normal, load(weight)), out);
  });
}

void NormalizeRange(const TensorView& x, const Norm& norm, const TensorView& out, int64_t begin, int64_t end) {
  const FloatTag d;
  const auto n = static_cast<size_t>(x.row_elements());
  Dispatch(x.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = begin; i < end; ++i) {
      NormalizeRow(d, x.As<T>() + i * x.row_stride(), norm, out.As<T>() + i * out.row_stride(), n);
    }
  });
}

void AddRange(const TensorView& x, const TensorView& delta, int64_t begin, int64_t end) {
  const FloatTag d;
  Dispatch(x.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = begin; i < end; ++i) {
      T* sum = x.As<T>() + i * x.row_stride();
      const T* other = delta.As<T>() + i * delta.row_stride();
      ForVectors(d, static_cast<size_t>(x.row_elements()),
                 [&](auto load, auto store) HWY_ATTR { store(hn::Add(load(sum), load(other)), sum); });
    }
  });
}

void NormalizeHeadsRange(const TensorView& from, const Norm& norm, const TensorView& to, int64_t begin, int64_t end) {
  const FloatTag d;
  const int64_t heads = from.shape()[1];
  const int64_t head_dim = from.shape()[2];
  const bool own_weights = norm.weight.view.shape().elements() != head_dim;
  Dispatch(from.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t head = 0; head < heads; ++head) {
        NormalizeRow<T>(d, from.As<T>() + i * from.row_stride() + head * head_dim, norm,
                        to.As<T>() + i * to.row_stride() + head * head_dim, static_cast<size_t>(head_dim),
                        own_weights ? head * head_dim : 0);
      }
    }
  });
}

void RotateRange(const TensorView& from, const RopeTable& rope, int64_t position, const TensorView& to, int64_t begin,
                 int64_t end) {
  const FloatTag d;
  const int64_t heads = from.shape()[1];
  const int64_t head_dim = from.shape()[2];
  const int64_t half = rope.rotary_dim() / 2;
  Dispatch(from.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = begin; i < end; ++i) {
      const float* cosine = rope.cos.view.As<float>() + (position + i) * rope.cos.view.row_stride();
      const float* sine = rope.sin.view.As<float>() + (position + i) * rope.sin.view.row_stride();
      for (int64_t head = 0; head < heads; ++head) {
        const T* source = from.As<T>() + i * from.row_stride() + head * head_dim;
        T* target = to.As<T>() + i * to.row_stride() + head * head_dim;
        ForVectors(d, static_cast<size_t>(half), [&](auto load, auto store) HWY_ATTR {
          const auto a = load(source);
          const auto b = load(source + half);
          const auto c = load(cosine);
          const auto s = load(sine);
          store(hn::NegMulAdd(b, s, hn::Mul(a, c)), target);
          store(hn::MulAdd(a, s, hn::Mul(b, c)), target + half);
        });
        if (source != target) {
          for (int64_t j = 2 * half; j < head_dim; ++j) target[j] = source[j];
        }
      }
    }
  });
}

/// 2 / (sqrt(pi) e^(x^2)) integrated from x on, to a relative error of 1.2e-7 (Press et al., Numerical Recipes, 6.2).
HWY_INLINE FloatVec Erfc(FloatTag d, FloatVec x) {
  const auto z = hn::Abs(x);
  const auto one = hn::Set(d, 1.0f);
  const auto t = hn::Div(one, hn::MulAdd(hn::Set(d, 0.5f), z, one));
  auto p = hn::Set(d, 0.17087277f);
  p = hn::MulAdd(p, t, hn::Set(d, -0.82215223f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.48851587f));
  p = hn::MulAdd(p, t, hn::Set(d, -1.13520398f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.27886807f));
  p = hn::MulAdd(p, t, hn::Set(d, -0.18628806f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.09678418f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.37409196f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.00002368f));
  p = hn::MulAdd(p, t, hn::Set(d, -1.26551223f));
  const auto tail = hn::Mul(t, Exp(d, hn::NegMulAdd(z, z, p)));
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Sub(hn::Set(d, 2.0f), tail), tail);
}

HWY_INLINE FloatVec Sigmoid(FloatTag d, FloatVec x) {
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, Exp(d, hn::Neg(x))));
}

struct Silu {
  HWY_INLINE FloatVec operator()(FloatTag d, FloatVec x) const { return hn::Mul(x, Sigmoid(d, x)); }
};

struct Gelu {
  HWY_INLINE FloatVec operator()(FloatTag d, FloatVec x) const {
    return hn::Mul(hn::Mul(hn::Set(d, 0.5f), x), Erfc(d, hn::Mul(x, hn::Set(d, -0.70710678f))));
  }
};

/// 0.5 (1 + tanh(u)) is the logistic function of 2u.
struct GeluTanh {
  HWY_INLINE FloatVec operator()(FloatTag d, FloatVec x) const {
    const auto cubic = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.044715f), hn::Set(d, 1.0f));
    return hn::Mul(x, Sigmoid(d, hn::Mul(hn::Mul(x, cubic), hn::Set(d, 2 * 0.79788456f))));
  }
};

struct Relu {
  HWY_INLINE FloatVec operator()(FloatTag d, FloatVec x) const {
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);  // what is no number stays none
  }
};

struct ReluSquared {
  HWY_INLINE FloatVec operator()(FloatTag d, FloatVec x) const {
    const auto positive = Relu()(d, x);
    return hn::Mul(positive, positive);
  }
};

/// Calls function(f) with the activation as a function of vectors.
template <typename Function>
HWY_INLINE void WithActivation(Activation activation, const Function& function) {
  switch (activation) {
    case Activation::kSilu:
      return function(Silu());
    case Activation::kGelu:
      return function(Gelu());
    case Activation::kGeluTanh:
      return function(GeluTanh());
    case Activation::kRelu:
      return function(Relu());
    case Activation::kReluSquared:
      return function(ReluSquared());
  }
}

void GatedActivationRange(Activation activation, const TensorView& gate_up, const TensorView& out, int64_t begin,
                          int64_t end) {
  const FloatTag d;
  const auto n = static_cast<size_t>(out.row_elements());
  WithActivation(activation, [&](auto activate) HWY_ATTR {
    Dispatch(out.dtype(), [&](auto zero) HWY_ATTR {
      using T = decltype(zero);
      for (int64_t i = begin; i < end; ++i) {
        const T* gate = gate_up.As<T>() + i * gate_up.row_stride();
        const T* up = gate + n;
        T* target = out.As<T>() + i * out.row_stride();
        ForVectors(
            d, n, [&](auto load, auto store) HWY_ATTR { store(hn::Mul(activate(d, load(gate)), load(up)), target); });
      }
    });
  });
}

void ActivateRange(Activation activation, const TensorView& x, const TensorView& out, int64_t begin, int64_t end) {
  const FloatTag d;
  const auto n = static_cast<size_t>(out.row_elements());
  WithActivation(activation, [&](auto activate) HWY_ATTR {
    Dispatch(out.dtype(), [&](auto zero) HWY_ATTR {
      using T = decltype(zero);
      for (int64_t i = begin; i < end; ++i) {
        const T* source = x.As<T>() + i * x.row_stride();
        T* target = out.As<T>() + i * out.row_stride();
        ForVectors(d, n, [&](auto load, auto store) HWY_ATTR { store(activate(d, load(source)), target); });
      }
    });
  });
}

void SoftcapRange(const TensorView& x, float cap, int64_t begin, int64_t end) {
  const FloatTag d;
  const auto factor = hn::Set(d, cap);
  const auto inverse = hn::Set(d, 1 / cap);
  for (int64_t i = begin; i < end; ++i) {
    float* row = x.As<float>() + i * x.row_stride();
    ForVectors(d, static_cast<size_t>(x.row_elements()), [&](auto load, auto store) HWY_ATTR {
      store(hn::Mul(factor, Tanh(d, hn::Mul(load(row), inverse))), row);
    });
  }
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
namespace {

HWY_EXPORT(EmbedRange);
HWY_EXPORT(NormalizeRange);
HWY_EXPORT(AddRange);
HWY_EXPORT(NormalizeHeadsRange);
HWY_EXPORT(RotateRange);
HWY_EXPORT(GatedActivationRange);
HWY_EXPORT(ActivateRange);
HWY_EXPORT(SoftcapRange);

/// Rows below which starting another thread costs more than it saves.
int64_t Grain(const TensorView& view) {
  constexpr int64_t kWorthAThread = 8192;  // elements
  return 1 + kWorthAThread / (view.row_elements() + 1);
}

}  // namespace

void Embed(const Team& team, std::span<const int32_t> tokens, TensorView table, float scale, TensorView out) {
  team.RunRanges(out.rows(), Grain(out), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(EmbedRange)(tokens, table, scale, out, begin, end);
  });
}

void Normalize(const Team& team, TensorView x, const Norm& norm, TensorView out) {
  team.RunRanges(x.rows(), Grain(x), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormalizeRange)(x, norm, out, begin, end);
  });
}

void Add(const Team& team, TensorView x, TensorView delta) {
  team.RunRanges(x.rows(), Grain(x), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddRange)(x, delta, begin, end);
  });
}

void NormalizeHeads(const Team& team, TensorView from, const Norm& norm, TensorView to) {
  team.RunRanges(from.rows(), Grain(from), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormalizeHeadsRange)(from, norm, to, begin, end);
  });
}

void Rotate(const Team& team, TensorView from, const RopeTable& rope, int64_t position, TensorView to) {
  team.RunRanges(from.rows(), Grain(from), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(RotateRange)(from, rope, position, to, begin, end);
  });
}

void GatedActivation(const Team& team, Activation activation, TensorView gate_up, TensorView out) {
  team.RunRanges(out.rows(), Grain(out), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GatedActivationRange)(activation, gate_up, out, begin, end);
  });
}

void Activate(const Team& team, Activation activation, TensorView x, TensorView out) {
  team.RunRanges(out.rows(), Grain(out), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ActivateRange)(activation, x, out, begin, end);
  });
}

void Softcap(const Team& team, TensorView x, float cap) {
  team.RunRanges(x.rows(), Grain(x), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SoftcapRange)(x, cap, begin, end);
  });
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
