// Embedding, norms, head steps, cache writes and activations on a GPU against the oracle.
#include "tests/ops/cuda/cuda_testing.h"

namespace runahead::testing {
namespace {

constexpr int64_t kRowCounts[] = {1, 17};
// Odd, aligned, and the widths of real models.
constexpr int64_t kFeatures[] = {5, 64, 2051, 4096, 4544};

TEST_F(CudaOpsTest, EmbedScalesRowsOfAnyTable) {
  for (const DType table_type : kAllDTypes) {
    for (const DType dtype : kAllDTypes) {
      for (const int64_t features : {77, 256}) {
        for (const size_t n : {size_t{4}, size_t{700}}) {  // ids in the kernel's parameters, and ids in memory
          HostTensor table(table_type, {50, features});
          table.Randomise(random);
          std::vector<int32_t> tokens(n);
          for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 50);
          const Shape shape{static_cast<int64_t>(n), features};
          HostTensor expected(dtype, shape);
          HostTensor actual(dtype, shape, features % 8 == 0 ? 8 : 3);
          oracle->Embed(tokens, table.view(), 1.7f, expected.view(), *stream);
          Mirror gpu_table = Put(table);
          Mirror gpu_actual = Put(actual);
          std::vector<int32_t> sent = tokens;
          gpu->Embed(sent, gpu_table.view(), 1.7f, gpu_actual.view(), *gpu_stream);
          std::fill(sent.begin(), sent.end(), 0);  // the caller may reuse its ids at once
          gpu_actual.Fetch();
          ExpectNear(
              actual, expected,
              [&](int64_t i, int64_t j) { return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)); }, "embed");
        }
      }
    }
  }
}

class CudaNormTest : public CudaOpsTest {
 protected:
  void Compare(DType dtype, NormKind kind, int64_t rows, int64_t features, bool biased) {
    const int64_t gap = features % 8 == 0 ? 8 : 5;
    HostTensor x(dtype, {rows, features}, gap);
    HostTensor weight(DType::kF32, {features});
    HostTensor bias(DType::kF32, {features});
    x.Randomise(random, 2, 3);
    weight.Randomise(random);
    bias.Randomise(random);
    Mirror gpu_x = Put(x);
    Mirror gpu_weight = Put(weight);
    Mirror gpu_bias = Put(bias);
    HostTensor expected(dtype, {rows, features});
    HostTensor actual(dtype, {rows, features}, gap);
    Mirror gpu_actual = Put(actual);
    const TensorView none;
    oracle->Normalize(x.view(), MakeNorm(kind, weight.view(), biased ? bias.view() : none), expected.view(), *stream);
    gpu->Normalize(gpu_x.view(), MakeNorm(kind, gpu_weight.view(), biased ? gpu_bias.view() : none),
                   gpu_actual.view(), *gpu_stream);
    gpu_actual.Fetch();
    // The statistics are sums over the features; the mean (3) cancels and leaves its own rounding.
    ExpectNear(
        actual, expected,
        [&](int64_t i, int64_t j) {
          const double scaled = std::abs(double{weight.At(j, 0)}) * 4 + std::abs(double{bias.At(j, 0)});
          return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) + SumTolerance(DType::kF32, features, scaled);
        },
        fmt::format("norm {} {} {}x{}", Name(dtype), static_cast<int>(kind), rows, features));
  }
};

TEST_F(CudaNormTest, MatchesOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      for (const int64_t rows : kRowCounts) {
        for (const int64_t features : kFeatures) {
          for (const bool biased : {false, true}) Compare(dtype, kind, rows, features, biased);
        }
      }
    }
  }
  Compare(DType::kBF16, NormKind::kRms, 3, 16384, false);
}

TEST_F(CudaOpsTest, AddMatchesOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t features : kFeatures) {
      HostTensor x(dtype, {17, features}, 8);
      HostTensor delta(dtype, {17, features}, 16);
      x.Randomise(random);
      delta.Randomise(random);
      Mirror gpu_x = Put(x);
      Mirror gpu_delta = Put(delta);
      HostTensor expected = x;
      oracle->Add(expected.view(), delta.view(), *stream);
      gpu->Add(gpu_x.view(), gpu_delta.view(), *gpu_stream);
      gpu_x.Fetch();
      ExpectNear(
          x, expected, [](int64_t, int64_t) { return 0.0; }, "sum");
    }
  }
}

TEST_F(CudaOpsTest, ChoosesTheLikeliestTokenAndEmbedsIt) {
  const std::unique_ptr<ChosenToken> chosen = gpu->NewChosenToken();
  ASSERT_NE(chosen, nullptr);
  const auto choose = [&](HostTensor& logits) {
    const Mirror mirror = Put(logits);
    gpu->ChooseLikeliest(mirror.view(), *chosen, *gpu_stream);
    return chosen->Wait();
  };
  for (const int64_t vocab : {1, 2, 31, 4096, 4097, 32000, 128256, 300001}) {
    HostTensor logits(DType::kF32, {1, vocab});
    logits.Randomise(random);
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; ++i) {
      if (logits.At(0, i) > logits.At(0, best)) best = i;
    }
    EXPECT_EQ(choose(logits), best) << "of " << vocab;
    logits.Set(0, vocab - 1, 100);
    logits.Set(0, vocab / 2, 100);
    EXPECT_EQ(choose(logits), vocab / 2) << "the first of two, of " << vocab;
    for (int64_t i = 0; i < vocab; ++i) logits.Set(0, i, -3.0f - static_cast<float>(i % 7));
    EXPECT_EQ(choose(logits), 0) << "negative, of " << vocab;
    for (int64_t i = 0; i < vocab; ++i) logits.Set(0, i, -INFINITY);
    EXPECT_EQ(choose(logits), 0) << "all infinite, of " << vocab;
    logits.Set(0, vocab - 1, 0.0f);
    logits.Set(0, vocab / 3, -0.0f);
    EXPECT_EQ(choose(logits), vocab / 3) << "zeros of either sign are equal, of " << vocab;
    logits.Set(0, vocab / 2, std::nanf(""));
    EXPECT_EQ(choose(logits), -1) << "a NaN, of " << vocab;
  }
  HostTensor table(DType::kBF16, {50, 264});
  table.Randomise(random);
  Mirror gpu_table = Put(table);
  HostTensor logits(DType::kF32, {1, 50});
  for (const int32_t token : {0, 49, 17}) {
    for (int64_t i = 0; i < 50; ++i) logits.Set(0, i, i == token ? 1.0f : 0.0f);
    const Mirror mirror = Put(logits);
    HostTensor expected(DType::kBF16, {1, 264});
    HostTensor actual = expected;
    Mirror gpu_actual = Put(actual);
    gpu->ChooseLikeliest(mirror.view(), *chosen, *gpu_stream);
    gpu->EmbedChosen(*chosen, gpu_table.view(), 1, gpu_actual.view(), *gpu_stream);  // nothing waits in between
    oracle->Embed(std::span(&token, 1), table.view(), 1, expected.view(), *stream);
    gpu_actual.Fetch();
    ExpectNear(
        actual, expected, [](int64_t, int64_t) { return 0.0; }, "embedding of a chosen token");
  }
}

class CudaHeadsTest : public CudaOpsTest {
 protected:
  static constexpr int64_t kPosition = 150;
  static constexpr int64_t kPositions = 200;

  void Compare(DType dtype, int64_t rows, int64_t head_dim, int64_t rotary_dim, bool normed, int64_t gap) {
    HostTensor cosine(DType::kF32, {kPositions, std::max<int64_t>(rotary_dim / 2, 1)});
    HostTensor sine = cosine;
    for (int64_t i = 0; i < kPositions; ++i) {
      for (int64_t j = 0; j < rotary_dim / 2; ++j) {
        const double angle = static_cast<double>(i) *
                             std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(rotary_dim));
        cosine.Set(i, j, static_cast<float>(std::cos(angle)));
        sine.Set(i, j, static_cast<float>(std::sin(angle)));
      }
    }
    HostTensor weight(DType::kF32, {head_dim});
    weight.Randomise(random);
    Mirror gpu_cosine = Put(cosine);
    Mirror gpu_sine = Put(sine);
    Mirror gpu_weight = Put(weight);
    RopeTable rope;
    rope.cos.view = cosine.view();
    rope.sin.view = sine.view();
    RopeTable gpu_rope;
    gpu_rope.cos.view = gpu_cosine.view();
    gpu_rope.sin.view = gpu_sine.view();
    Norm norm;
    norm.epsilon = 1e-6f;
    norm.weight.view = weight.view();
    Norm gpu_norm;
    gpu_norm.epsilon = norm.epsilon;
    gpu_norm.weight.view = gpu_weight.view();
    const HeadSteps steps{normed ? &norm : nullptr, rotary_dim > 0 ? &rope : nullptr};
    const HeadSteps gpu_steps{normed ? &gpu_norm : nullptr, rotary_dim > 0 ? &gpu_rope : nullptr};
    const std::string what = fmt::format("{} {} rows of {}, rotary {}, {}", Name(dtype), rows, head_dim, rotary_dim,
                                         normed ? "normed" : "plain");
    CompareQueries(dtype, rows, head_dim, gap, steps, gpu_steps, what);
    if (normed) {  // weights of their own for each of CompareQueries' heads
      HostTensor own(DType::kF32, {5 * head_dim});
      own.Randomise(random);
      Mirror gpu_own = Put(own);
      Norm own_norm;
      own_norm.epsilon = norm.epsilon;
      own_norm.weight.view = own.view();
      Norm gpu_own_norm;
      gpu_own_norm.epsilon = norm.epsilon;
      gpu_own_norm.weight.view = gpu_own.view();
      CompareQueries(dtype, rows, head_dim, gap, {&own_norm, steps.rope}, {&gpu_own_norm, gpu_steps.rope}, what);
    }
    CompareAppend(dtype, rows, head_dim, gap, steps, gpu_steps, what);
    ComparePrepare(dtype, rows, head_dim, gap, steps, gpu_steps, what);
  }

 private:
  /// Two rounded products; after a norm, one flipped rounding of its result more.
  static double Allowed(DType dtype, const HeadSteps& steps, double largest, double value) {
    const double flip = steps.norm != nullptr ? 2 * UnitRoundoff(dtype) * largest : 0;
    return 2 * UnitRoundoff(dtype) * std::abs(value) + SumTolerance(DType::kF32, 256, largest) + flip;
  }

  void CompareQueries(DType dtype, int64_t rows, int64_t head_dim, int64_t gap, const HeadSteps& steps,
                      const HeadSteps& gpu_steps, const std::string& what) {
    HostTensor q(dtype, {rows, 5, head_dim}, gap);
    q.Randomise(random);
    Mirror gpu_q = Put(q);
    HostTensor expected = q;
    oracle->PrepareQueries(expected.view(), steps, kPosition, *stream);
    gpu->PrepareQueries(gpu_q.view(), gpu_steps, kPosition, *gpu_stream);
    gpu_q.Fetch();
    const double largest = std::max(q.Largest(), expected.Largest());
    ExpectNear(
        q, expected, [&](int64_t i, int64_t j) { return Allowed(dtype, steps, largest, expected.At(i, j)); },
        "queries " + what);
  }

  /// Both at once give what each gives alone.
  void ComparePrepare(DType dtype, int64_t rows, int64_t head_dim, int64_t gap, const HeadSteps& steps,
                      const HeadSteps& gpu_steps, const std::string& what) {
    HostTensor q(dtype, {rows, 5, head_dim}, gap);
    HostTensor k(dtype, {rows, 3, head_dim}, gap);
    HostTensor v(dtype, {rows, 3, head_dim}, gap);
    q.Randomise(random);
    k.Randomise(random);
    v.Randomise(random);
    Mirror gpu_q = Put(q);
    Mirror gpu_k = Put(k);
    Mirror gpu_v = Put(v);
    HostTensor expected_q = q;
    HostTensor keys(dtype, {rows, 3, head_dim});
    HostTensor values = keys;
    HostTensor expected_keys = keys;
    HostTensor expected_values = keys;
    Mirror gpu_keys = Put(keys);
    Mirror gpu_values = Put(values);
    gpu->PrepareHeads({gpu_q.view(),
                       gpu_k.view(),
                       gpu_v.view(),
                       gpu_steps,
                       gpu_steps,
                       {0, kPosition, kPosition + rows, gpu_keys.view(), gpu_values.view()}},
                      *gpu_stream);
    oracle->PrepareHeads({expected_q.view(),
                          k.view(),
                          v.view(),
                          steps,
                          steps,
                          {0, kPosition, kPosition + rows, expected_keys.view(), expected_values.view()}},
                         *stream);
    gpu_q.Fetch();
    gpu_keys.Fetch();
    gpu_values.Fetch();
    const double largest = std::max({q.Largest(), expected_q.Largest(), k.Largest(), expected_keys.Largest()});
    const auto near = [&](HostTensor& actual, HostTensor& expected, const char* tensor) {
      ExpectNear(
          actual, expected, [&](int64_t i, int64_t j) { return Allowed(dtype, steps, largest, expected.At(i, j)); },
          fmt::format("{} of both, {}", tensor, what));
    };
    near(q, expected_q, "queries");
    near(keys, expected_keys, "keys");
    near(values, expected_values, "values");
  }

  void CompareAppend(DType dtype, int64_t rows, int64_t head_dim, int64_t gap, const HeadSteps& steps,
                     const HeadSteps& gpu_steps, const std::string& what) {
    HostTensor k(dtype, {rows, 3, head_dim}, gap);
    HostTensor v(dtype, {rows, 3, head_dim}, gap);
    k.Randomise(random);
    v.Randomise(random);
    Mirror gpu_k = Put(k);
    Mirror gpu_v = Put(v);
    HostTensor keys(dtype, {rows, 3, head_dim});
    HostTensor values(dtype, {rows, 3, head_dim});
    HostTensor expected = keys;
    HostTensor expected_values = values;
    Mirror gpu_keys = Put(keys);
    Mirror gpu_values = Put(values);
    gpu->AppendKv(gpu_k.view(), gpu_v.view(), gpu_steps,
                  {0, kPosition, kPosition + rows, gpu_keys.view(), gpu_values.view()}, *gpu_stream);
    oracle->AppendKv(k.view(), v.view(), steps,
                     {0, kPosition, kPosition + rows, expected.view(), expected_values.view()}, *stream);
    gpu_keys.Fetch();
    gpu_values.Fetch();
    const double largest = std::max(k.Largest(), expected.Largest());
    ExpectNear(
        keys, expected, [&](int64_t i, int64_t j) { return Allowed(dtype, steps, largest, expected.At(i, j)); },
        "keys " + what);
    ExpectNear(
        values, expected_values, [](int64_t, int64_t) { return 0.0; }, "values " + what);
  }
};

TEST_F(CudaHeadsTest, RotationNormAndAppendMatchOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t rows : {1, 33}) {
      for (const auto& [head_dim, rotary_dim] :
           {std::pair<int64_t, int64_t>{64, 64}, {80, 32}, {10, 6}, {96, 96}, {128, 128}, {256, 256}, {64, 0}}) {
        for (const bool normed : {false, true}) {
          Compare(dtype, rows, head_dim, rotary_dim, normed, 8);
          Compare(dtype, rows, head_dim, rotary_dim, normed, 3);
        }
      }
    }
  }
}

class CudaActivationTest : public CudaOpsTest {
 protected:
  /// As tests/ops/rows_test.cc derives it, the GPU's fast exponential for 16-bit results included: its argument is a
  /// rounded product, an error of 2 |gate| u.
  static double Allowed(DType dtype, double gate, double up, double expected) {
    gate = std::abs(gate);
    const double relative = 2e-6 + UnitRoundoff(DType::kF32) * (8 + 4 * gate + 4 * gate * gate);
    const double flushed = 0x1p-125 * (1 + gate) * std::abs(up);
    const double subnormal = dtype == DType::kF16 ? 0x1p-24 : 0x1p-125;
    return std::abs(expected) * (2 * UnitRoundoff(dtype) + relative * (1 + gate)) + flushed + subnormal;
  }
};

TEST_F(CudaActivationTest, MatchOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const Activation activation : kAllActivations) {
      for (const int64_t features : kFeatures) {
        const std::string what = fmt::format("{} {} {}", Name(dtype), static_cast<int>(activation), features);
        HostTensor gate_up(dtype, {9, 2 * features}, 8);
        gate_up.Randomise(random, 4);
        HostTensor expected(dtype, {9, features});
        HostTensor actual(dtype, {9, features}, 5);
        Mirror gpu_gate_up = Put(gate_up);
        Mirror gpu_actual = Put(actual);
        oracle->GatedActivation(activation, gate_up.view(), expected.view(), *stream);
        gpu->GatedActivation(activation, gpu_gate_up.view(), gpu_actual.view(), *gpu_stream);
        gpu_actual.Fetch();
        ExpectNear(
            actual, expected,
            [&](int64_t i, int64_t j) {
              return Allowed(dtype, gate_up.At(i, j), gate_up.At(i, features + j), expected.At(i, j));
            },
            "gated " + what);

        HostTensor x(dtype, {9, features}, 8);
        x.Randomise(random, 4);
        HostTensor before = x;
        HostTensor x_expected(dtype, {9, features});
        Mirror gpu_x = Put(x);
        oracle->Activate(activation, x.view(), x_expected.view(), *stream);
        gpu->Activate(activation, gpu_x.view(), gpu_x.view(), *gpu_stream);  // input and output are the same
        gpu_x.Fetch();
        ExpectNear(
            x, x_expected,
            [&](int64_t i, int64_t j) { return Allowed(dtype, before.At(i, j), 1, x_expected.At(i, j)); },
            "activation " + what);
      }
    }
  }
}

TEST_F(CudaOpsTest, SoftcapMatchesOracle) {
  HostTensor x(DType::kF32, {2, 1001}, 3);
  x.Randomise(random, 40);
  HostTensor expected = x;
  Mirror gpu_x = Put(x);
  oracle->Softcap(expected.view(), 30, *stream);
  gpu->Softcap(gpu_x.view(), 30, *gpu_stream);
  gpu_x.Fetch();
  ExpectNear(
      x, expected, [&](int64_t i, int64_t j) { return 8 * UnitRoundoff(DType::kF32) * std::abs(expected.At(i, j)); },
      "softcap");
}

}  // namespace
}  // namespace runahead::testing
