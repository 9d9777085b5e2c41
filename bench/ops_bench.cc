// How fast the CPU's operations are. Every shape is checked against the oracle, on a few rows, before it is timed.
// `ops_bench --layer` times the operations of one layer of a Llama with a billion parameters instead (hidden 2048, 32
// heads, 8 kv heads of 64, ffn 8192) at 2048 rows, and states what share of the matmul rate measured beside them they
// reach together: model FLOPs over time over rate.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <hwy/targets.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "ops/ops.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

/// Normally distributed numbers in device memory.
class RandomTensor {
 public:
  RandomTensor(Device& device, DType dtype, Shape shape, float sigma = 1)
      : memory_(device.Allocate(static_cast<size_t>(shape.elements()) * SizeOf(dtype))),
        view_(memory_.View(dtype, shape)) {
    static std::mt19937 random(7);
    std::normal_distribution<float> normal(0, sigma);
    std::vector<float> some(4099);
    for (float& value : some) value = normal(random);
    Dispatch(dtype, [&](auto zero) {
      using T = decltype(zero);
      for (int64_t i = 0; i < shape.elements(); ++i) {
        view_.As<T>()[i] = T(some[static_cast<size_t>(i) % some.size()]);
      }
    });
  }
  [[nodiscard]] TensorView view() const { return view_; }

 private:
  Buffer memory_;
  TensorView view_;
};

double At(TensorView view, int64_t row, int64_t column) {
  return Dispatch(view.dtype(), [&](auto zero) {
    return static_cast<double>(static_cast<float>(view.As<decltype(zero)>()[row * view.row_stride() + column]));
  });
}

/// Whether rows [row, row + n) of `actual` are those of `expected` within `allowed`.
bool Agrees(TensorView actual, int64_t row, TensorView expected, double allowed) {
  for (int64_t i = 0; i < expected.rows(); ++i) {
    for (int64_t j = 0; j < expected.row_elements(); ++j) {
      if (!(std::abs(At(actual, row + i, j) - At(expected, i, j)) <= allowed)) return false;
    }
  }
  return true;
}

struct Fixture {
  explicit Fixture(int threads)
      : device(MakeCpuDevice()),
        stream(device->NewStream()),
        ops(MakeCpuOps(*device, threads)),
        oracle(MakeScalarOps(*device)) {}
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<Ops> oracle;
};

void ReportFlops(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(flops / 1e9, benchmark::Counter::kIsIterationInvariantRate);
}

void ReportBytes(benchmark::State& state, double bytes) {
  state.counters["GB/s"] = benchmark::Counter(bytes / 1e9, benchmark::Counter::kIsIterationInvariantRate);
}

/// Arguments: dtype, threads, rows, in_features, out_features, whether the weights stay where they are.
void BenchMatmul(benchmark::State& state) {
  const auto dtype = static_cast<DType>(state.range(0));
  Fixture f(static_cast<int>(state.range(1)));
  const int64_t rows = state.range(2);
  const int64_t in_features = state.range(3);
  const int64_t out_features = state.range(4);
  const RandomTensor x(*f.device, dtype, {rows, in_features});
  const RandomTensor y(*f.device, dtype, {rows, out_features});
  const RandomTensor w(*f.device, dtype, {out_features, in_features});
  const auto linear = f.ops->Prepare({{{w.view()}, {}, state.range(5) != 0}}, dtype);
  f.ops->Matmul(x.view(), *linear, y.view(), *f.stream);

  // The oracle takes the first columns of the last row.
  const TensorView some = w.view().Rows(0, 40);
  const auto slow = f.oracle->Prepare({{{some}, {}}}, dtype);
  const RandomTensor expected(*f.device, dtype, {1, 40});
  f.oracle->Matmul(x.view().Rows(rows - 1, rows), *slow, expected.view(), *f.stream);
  const double norm = std::sqrt(static_cast<double>(in_features));
  if (!Agrees(y.view().Columns(0, 40), rows - 1, expected.view(), 6 * norm * UnitRoundoff(dtype) + 6e-6 * norm)) {
    return state.SkipWithError("differs from the oracle");
  }
  for (auto _ : state) f.ops->Matmul(x.view(), *linear, y.view(), *f.stream);
  ReportFlops(state, 2.0 * static_cast<double>(rows * in_features * out_features));
  ReportBytes(state, static_cast<double>(w.view().bytes()));
}

/// Arguments: format, threads, rows, in_features, out_features. Activations in bf16.
void BenchIntegerMatmul(benchmark::State& state) {
  const auto format = static_cast<WeightFormat>(state.range(0));
  Fixture f(static_cast<int>(state.range(1)));
  const int64_t rows = state.range(2);
  const int64_t in_features = state.range(3);
  const int64_t out_features = state.range(4);
  const RandomTensor x(*f.device, DType::kBF16, {rows, in_features});
  const RandomTensor y(*f.device, DType::kBF16, {rows, out_features});
  const RandomTensor w(*f.device, DType::kBF16, {out_features, in_features});
  const auto linear = f.ops->Prepare({{{w.view()}, {}}}, DType::kBF16, format);
  f.ops->Matmul(x.view(), *linear, y.view(), *f.stream);

  const auto slow = f.oracle->Prepare({{{w.view().Rows(0, 40)}, {}}}, DType::kBF16, format);
  const RandomTensor expected(*f.device, DType::kBF16, {1, 40});
  f.oracle->Matmul(x.view().Rows(rows - 1, rows), *slow, expected.view(), *f.stream);
  if (!Agrees(y.view().Columns(0, 40), rows - 1, expected.view(), 0)) {
    return state.SkipWithError("differs from the oracle");
  }
  for (auto _ : state) f.ops->Matmul(x.view(), *linear, y.view(), *f.stream);
  ReportFlops(state, 2.0 * static_cast<double>(rows * in_features * out_features));
  ReportBytes(state, static_cast<double>(QuantisedRowBytes(format, in_features)) * static_cast<double>(out_features));
}

/// Arguments: dtype, threads, queries, keys, q_heads, kv_heads, head_dim.
void BenchAttention(benchmark::State& state) {
  const auto dtype = static_cast<DType>(state.range(0));
  Fixture f(static_cast<int>(state.range(1)));
  const int64_t queries = state.range(2);
  const int64_t keys = state.range(3);
  const int64_t q_heads = state.range(4);
  const int64_t kv_heads = state.range(5);
  const int64_t head_dim = state.range(6);
  const RandomTensor q(*f.device, dtype, {queries, q_heads, head_dim});
  const RandomTensor k(*f.device, dtype, {keys, kv_heads, head_dim});
  const RandomTensor v(*f.device, dtype, {keys, kv_heads, head_dim});
  const RandomTensor out(*f.device, dtype, {queries, q_heads, head_dim});
  const KvSpan span{0, 0, keys, k.view(), v.view()};
  AttentionOptions options;
  options.scale = 1 / std::sqrt(static_cast<float>(head_dim));
  const auto run = [&] { f.ops->Attention(q.view(), keys - queries, span, options, out.view(), *f.stream); };
  run();

  const RandomTensor expected(*f.device, dtype, {1, q_heads, head_dim});
  f.oracle->Attention(q.view().Rows(queries - 1, queries), keys - 1, span, options, expected.view(), *f.stream);
  if (!Agrees(out.view(), queries - 1, expected.view(), 8 * UnitRoundoff(dtype) + 1e-5)) {
    return state.SkipWithError("differs from the oracle");
  }
  for (auto _ : state) run();
  const double pairs = static_cast<double>(queries) * static_cast<double>(keys) -
                       static_cast<double>(queries) * static_cast<double>(queries - 1) / 2;
  ReportFlops(state, 4 * pairs * static_cast<double>(q_heads * head_dim));
  ReportBytes(state, static_cast<double>(k.view().bytes() + v.view().bytes()));
}

/// Arguments: dtype, threads, rows, features.
void BenchNormalize(benchmark::State& state) {
  const auto dtype = static_cast<DType>(state.range(0));
  Fixture f(static_cast<int>(state.range(1)));
  const Shape shape{state.range(2), state.range(3)};
  const RandomTensor x(*f.device, dtype, shape);
  const RandomTensor out(*f.device, dtype, shape);
  const RandomTensor weight(*f.device, DType::kF32, {shape[1]});
  Norm norm;
  norm.epsilon = 1e-5f;
  norm.weight.view = weight.view();
  for (auto _ : state) f.ops->Normalize(x.view(), norm, out.view(), *f.stream);
  const RandomTensor expected(*f.device, dtype, {1, shape[1]});
  f.oracle->Normalize(x.view().Rows(0, 1), norm, expected.view(), *f.stream);
  if (!Agrees(out.view(), 0, expected.view(), 16 * UnitRoundoff(dtype))) {
    return state.SkipWithError("differs from the oracle");
  }
  ReportBytes(state, 2 * static_cast<double>(x.view().bytes()));
}

constexpr int64_t kF32 = static_cast<int64_t>(DType::kF32);
constexpr int64_t kBF16 = static_cast<int64_t>(DType::kBF16);
constexpr int64_t kF16 = static_cast<int64_t>(DType::kF16);
constexpr int64_t kInt8 = static_cast<int64_t>(WeightFormat::kInt8);
constexpr int64_t kInt4 = static_cast<int64_t>(WeightFormat::kInt4);

BENCHMARK(BenchMatmul)
    ->ArgNames({"dtype", "threads", "rows", "in", "out", "in_place"})
    ->ArgsProduct({{kF32, kBF16, kF16}, {1, 2}, {1, 16, 128, 512, 2048}, {2048}, {8192}, {0, 1}})
    ->ArgsProduct({{kF32, kBF16}, {1, 2}, {1, 512, 2048}, {8192}, {2048}, {1}})
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BenchIntegerMatmul)
    ->ArgNames({"format", "threads", "rows", "in", "out"})
    ->ArgsProduct({{kInt8, kInt4}, {1, 2}, {1, 4, 16, 128, 512, 2048}, {2048}, {8192}})
    ->ArgsProduct({{kInt8, kInt4}, {1, 2}, {1, 512, 2048}, {8192}, {2048}})
    ->ArgsProduct({{kInt8, kInt4}, {1, 2}, {1}, {2048}, {128256}})  // a head
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BenchAttention)
    ->ArgNames({"dtype", "threads", "q", "k", "q_heads", "kv_heads", "dim"})
    ->Args({kBF16, 1, 2048, 2048, 32, 8, 64})
    ->Args({kBF16, 2, 2048, 2048, 32, 8, 64})
    ->Args({kBF16, 1, 8192, 8192, 8, 2, 32})
    ->Args({kBF16, 1, 2048, 2048, 32, 32, 128})
    ->Args({kF32, 1, 2048, 2048, 32, 8, 64})
    ->Args({kBF16, 1, 1, 8192, 32, 8, 64})
    ->Args({kBF16, 2, 1, 8192, 32, 8, 64})
    ->Args({kBF16, 1, 1, 8192, 8, 2, 32})
    ->Args({kBF16, 1, 1, 8192, 32, 32, 128})
    ->Args({kF32, 1, 1, 8192, 32, 8, 64})
    ->Args({kF16, 1, 1, 8192, 32, 8, 64})
    ->Args({kBF16, 1, 64, 64, 32, 8, 64})
    ->Args({kBF16, 1, 512, 512, 32, 8, 64})
    ->Args({kF16, 1, 512, 512, 32, 8, 64})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BenchNormalize)
    ->ArgNames({"dtype", "threads", "rows", "features"})
    ->Args({kBF16, 1, 2048, 2048})
    ->Args({kF32, 1, 2048, 2048})
    ->UseRealTime();

// ---- One layer -------------------------------------------------------------------------------------------------

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Step {
  std::string name;
  double flops;
  std::function<void()> run;
  std::vector<double> seconds;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Times the steps in turn, `repeats` times, so that all see the same machine.
void TimeLayer(int threads, int repeats) {
  constexpr int64_t kRows = 2048;
  constexpr int64_t kHidden = 2048;
  constexpr int64_t kHeads = 32;
  constexpr int64_t kKvHeads = 8;
  constexpr int64_t kHeadDim = 64;
  constexpr int64_t kKv = kKvHeads * kHeadDim;
  constexpr int64_t kFfn = 8192;
  const DType dtype = DType::kBF16;
  Fixture f(threads);
  Device& device = *f.device;
  Ops& ops = *f.ops;
  Stream& stream = *f.stream;

  const auto linear = [&](int64_t in_features, const std::vector<int64_t>& rows) {
    std::vector<RandomTensor> weights;
    std::vector<LinearPart> parts;
    for (const int64_t n : rows) {
      weights.emplace_back(device, dtype, Shape{n, in_features}, 0.02f);
      parts.push_back({{weights.back().view()}, {}});
    }
    return ops.Prepare(parts, dtype);
  };
  const auto qkv_weights = linear(kHidden, {kHidden, 2 * kKv});
  const auto out_weights = linear(kHidden, {kHidden});
  const auto up_weights = linear(kHidden, {2 * kFfn});
  const auto down_weights = linear(kFfn, {kHidden});
  const auto ceiling_weights = linear(kHidden, {kFfn});

  const RandomTensor x(device, dtype, {kRows, kHidden});
  const RandomTensor delta(device, dtype, {kRows, kHidden}, 1e-2f);
  const RandomTensor normal(device, dtype, {kRows, kHidden});
  const RandomTensor qkv(device, dtype, {kRows, kHidden + 2 * kKv});
  const RandomTensor attended(device, dtype, {kRows, kHidden});
  const RandomTensor gate_up(device, dtype, {kRows, 2 * kFfn});
  const RandomTensor activated(device, dtype, {kRows, kFfn});
  const RandomTensor weight(device, DType::kF32, {kHidden});
  const RandomTensor angles(device, DType::kF32, {kRows, kHeadDim / 2}, 0.5f);
  RopeTable rope;
  rope.cos.view = angles.view();
  rope.sin.view = angles.view();
  Norm norm;
  norm.epsilon = 1e-5f;
  norm.weight.view = weight.view();
  KvCache cache(device, {1, kKvHeads, kHeadDim, dtype}, kRows);
  const KvSpan span = cache.Span(0, 0, kRows);
  AttentionOptions options;
  options.scale = 0.125f;
  const TensorView q = qkv.view().Columns(0, kHidden).SplitRows(kHeads, kHeadDim);
  const TensorView k = qkv.view().Columns(kHidden, kHidden + kKv).SplitRows(kKvHeads, kHeadDim);
  const TensorView v = qkv.view().Columns(kHidden + kKv, kHidden + 2 * kKv).SplitRows(kKvHeads, kHeadDim);

  const auto flops = [](int64_t in_features, int64_t out_features) {
    return 2.0 * static_cast<double>(kRows) * static_cast<double>(in_features) * static_cast<double>(out_features);
  };
  const double pairs = static_cast<double>(kRows) * static_cast<double>(kRows + 1) / 2;
  std::vector<Step> steps = {
      {"norm", 0, [&] { ops.Normalize(x.view(), norm, normal.view(), stream); }, {}},
      {"q, k, v",
       flops(kHidden, kHidden + 2 * kKv),
       [&] { ops.Matmul(normal.view(), *qkv_weights, qkv.view(), stream); },
       {}},
      {"rope, cache",
       0,
       [&] {
         ops.PrepareQueries(q, {nullptr, &rope}, 0, stream);
         ops.AppendKv(k, v, {nullptr, &rope}, span, stream);
       },
       {}},
      {"attention",
       4 * pairs * kHeads * kHeadDim,
       [&] { ops.Attention(q, 0, span, options, attended.view().SplitRows(kHeads, kHeadDim), stream); },
       {}},
      {"out + residual",
       flops(kHidden, kHidden),
       [&] { ops.MatmulAdd(attended.view(), *out_weights, delta.view(), x.view(), stream); },
       {}},
      {"norm", 0, [&] { ops.Normalize(x.view(), norm, normal.view(), stream); }, {}},
      {"gate, up",
       flops(kHidden, 2 * kFfn),
       [&] { ops.Matmul(normal.view(), *up_weights, gate_up.view(), stream); },
       {}},
      {"activation",
       0,
       [&] { ops.GatedActivation(Activation::kSilu, gate_up.view(), activated.view(), stream); },
       {}},
      {"down + residual",
       flops(kFfn, kHidden),
       [&] { ops.MatmulAdd(activated.view(), *down_weights, delta.view(), x.view(), stream); },
       {}},
  };
  std::vector<double> ceiling;
  std::vector<double> whole;
  for (int repeat = -1; repeat < repeats; ++repeat) {
    const auto time = [&](const std::function<void()>& run) {
      const double start = Seconds();
      run();
      return Seconds() - start;
    };
    const double matmul = time([&] { ops.Matmul(normal.view(), *ceiling_weights, activated.view(), stream); });
    double total = 0;
    for (Step& step : steps) {
      const double seconds = time(step.run);
      total += seconds;
      if (repeat >= 0) step.seconds.push_back(seconds);
    }
    if (repeat < 0) continue;  // the first round creates primitives and touches memory
    ceiling.push_back(flops(kHidden, kFfn) / matmul);
    whole.push_back(total);
  }

  double all_flops = 0;
  double best_total = 0;
  const double best = *std::max_element(ceiling.begin(), ceiling.end());
  fmt::print("{} thread{}, 2048 rows, bf16: matmul 2048x2048x8192 {:.0f} GFLOP/s (median {:.0f})\n", threads,
             threads == 1 ? "" : "s", best / 1e9, Median(ceiling) / 1e9);
  fmt::print("{:<18}{:>12}{:>12}{:>12}\n", "step", "median ms", "best ms", "GFLOP/s");
  for (const Step& step : steps) {
    const double shortest = *std::min_element(step.seconds.begin(), step.seconds.end());
    all_flops += step.flops;
    best_total += shortest;
    fmt::print("{:<18}{:>12.2f}{:>12.2f}{:>12.0f}\n", step.name, 1e3 * Median(step.seconds), 1e3 * shortest,
               step.flops / shortest / 1e9);
  }
  fmt::print("{:<18}{:>12.2f}{:>12.2f}{:>12.0f}\n", "layer", 1e3 * Median(whole), 1e3 * best_total,
             all_flops / best_total / 1e9);
  fmt::print("share of the matmul rate: {:.0f} % (best against best), {:.0f} % (median against median)\n\n",
             100 * all_flops / best_total / best, 100 * all_flops / Median(whole) / Median(ceiling));
}

/// Whether the processor has the vectors that Highway calls `name`; wider ones are not used from now on.
bool LimitTarget(std::string_view name) {
  const int64_t supported = hwy::SupportedTargets();
  for (int64_t left = supported; left != 0; left &= left - 1) {
    if (hwy::TargetName(left & -left) != name) continue;
    hwy::SetSupportedTargetsForTest(left);  // lower bits are wider vectors
    return true;
  }
  fmt::print(stderr, "no target {} on this processor\n", name);
  return false;
}

}  // namespace
}  // namespace runahead

// Processor time, since others may share the processors. `--target=AVX2` does without wider vectors, as Highway names
// them.
int main(int argc, char** argv) {
  constexpr std::string_view kTarget = "--target=";
  if (argc > 1 && std::string_view(argv[1]).starts_with(kTarget)) {
    if (!runahead::LimitTarget(std::string_view(argv[1]).substr(kTarget.size()))) return 2;
    argv[1] = argv[0];
    ++argv;
    --argc;
  }
  if (argc > 1 && std::strcmp(argv[1], "--layer") == 0) {
    const int repeats = argc > 2 ? std::max(1, std::atoi(argv[2])) : 9;
    runahead::TimeLayer(1, repeats);
    runahead::TimeLayer(2, repeats);
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
