// How fast a GPU decodes, operation by operation: one row through the matrices of real models and one query through
// their attention, each checked against the oracle before it is timed, as a share of the rate at which the GPU
// copies. Several copies of each operand are used in turn, more than the second cache holds.
//   decode_bench [GPU]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "ops/cuda/cuda_ops.h"
#include "ops/ops.h"
#include "tensor/cpu_device.h"
#include "tensor/cuda_device.h"

namespace runahead {
namespace {

constexpr double kCacheBytes = 200e6;  // more than any second cache
constexpr DType kDType = DType::kBF16;

/// Uniform numbers from -1 to -0.5 and 0.5 to 1, in host memory.
class HostNumbers {
 public:
  explicit HostNumbers(Shape shape) : bits_(static_cast<size_t>(shape.elements())), shape_(shape) {
    static std::mt19937_64 random(3);
    for (uint16_t& bits : bits_) bits = static_cast<uint16_t>((random() & 0x807fU) | 0x3f00U);
  }
  [[nodiscard]] TensorView view() { return {bits_.data(), kDType, shape_}; }

 private:
  std::vector<uint16_t> bits_;
  Shape shape_;
};

struct Bench {
  explicit Bench(int ordinal)
      : gpu(MakeCudaDevice(ordinal)),
        ops(MakeCudaOps(*gpu, ordinal)),
        stream(gpu->NewStream()),
        host(MakeCpuDevice()),
        host_stream(host->NewStream()),
        oracle(MakeScalarOps(*host)) {}

  /// Milliseconds of a call, of many that follow each other; `call` gets its number.
  double Time(const std::function<void(int)>& call) const {
    constexpr int kCalls = 200;
    constexpr int kRuns = 5;
    double best = INFINITY;
    for (int run = 0; run < kRuns; ++run) {
      const auto begin = stream->NewMark();
      for (int i = 0; i < kCalls; ++i) call(i);
      const auto end = stream->NewMark();
      stream->Synchronize();
      best = std::min(best, end->MillisecondsSince(*begin) / kCalls);
    }
    return best;
  }

  void MeasureCopies() {
    constexpr size_t kBytes = size_t{1} << 30;
    const Buffer from = gpu->Allocate(kBytes);
    const Buffer to = gpu->Allocate(kBytes);
    copy_rate = 2.0 * kBytes / (Time([&](int) { gpu->Copy(to.data(), from.data(), kBytes, *stream); }) * 1e-3);
    fmt::print("{}: {:.2f} TB/s copied\n", gpu->name(), copy_rate / 1e12);
  }

  void Report(const std::string& what, double bytes, double ms, double distance) const {
    const double rate = bytes / (ms * 1e-3);
    fmt::print("{:<44} {:>8.1f} us {:>6.2f} TB/s {:>6.1f} %   off by {:.1e}{}\n", what, 1e3 * ms, rate / 1e12,
               100 * rate / copy_rate, distance, distance < 0.02 ? "" : "  WRONG");
    wrong = wrong || !(distance < 0.02);
  }

  /// ||actual - expected|| / ||expected||.
  double Distance(TensorView on_gpu, TensorView expected) const {
    std::vector<uint16_t> actual(static_cast<size_t>(expected.shape().elements()));
    gpu->CopyToHost(actual.data(), on_gpu.data(), 2 * actual.size(), *stream);
    double difference = 0;
    double magnitude = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      const float a(reinterpret_cast<const BFloat16*>(actual.data())[i]);
      const float b(expected.As<BFloat16>()[i]);
      difference += (double{a} - b) * (double{a} - b);
      magnitude += double{b} * b;
    }
    return std::sqrt(difference / magnitude);
  }

  /// y = x W^T, or with `gated` silu(gate) * up.
  void MeasureMatmul(int64_t in_features, int64_t out_features, bool gated) {
    HostNumbers weights({out_features, in_features});
    HostNumbers x({1, in_features});
    const double bytes = 2.0 * static_cast<double>(in_features) * static_cast<double>(out_features);
    const auto count = static_cast<size_t>(std::ceil(kCacheBytes / bytes)) + 1;
    const std::vector<LinearPart> parts{{{weights.view()}, {}}};
    std::vector<std::unique_ptr<Linear>> linears;
    for (size_t i = 0; i < count; ++i) linears.push_back(ops->Prepare(parts, kDType));
    const Tensor gpu_x = ops->Upload(x.view());
    const int64_t width = gated ? out_features / 2 : out_features;
    HostNumbers product({1, out_features});
    HostNumbers expected({1, width});
    const Tensor gpu_product = ops->Upload(product.view());
    const Tensor y = ops->Upload(expected.view());
    const auto run = [&](Ops& on, const Linear& linear, TensorView in, TensorView room, TensorView out, Stream& at) {
      if (gated) return on.MatmulActivate(in, linear, Activation::kSilu, room, out, at);
      on.Matmul(in, linear, out, at);
    };
    run(*oracle, *oracle->Prepare(parts, kDType), x.view(), product.view(), expected.view(), *host_stream);
    run(*ops, *linears.front(), gpu_x.view, gpu_product.view, y.view, *stream);
    const double distance = Distance(y.view, expected.view());
    const double ms = Time([&](int i) {
      run(*ops, *linears[static_cast<size_t>(i) % count], gpu_x.view, gpu_product.view, y.view, *stream);
    });
    Report(fmt::format("{} -> {}{}", in_features, out_features, gated ? ", gated" : ""), bytes, ms, distance);
  }

  void MeasureAttention(int64_t q_heads, int64_t kv_heads, int64_t head_dim, int64_t keys) {
    HostNumbers q({1, q_heads, head_dim});
    HostNumbers k({keys, kv_heads, head_dim});
    HostNumbers v({keys, kv_heads, head_dim});
    HostNumbers expected({1, q_heads, head_dim});
    const double bytes = 4.0 * static_cast<double>(keys * kv_heads * head_dim);
    const auto count = static_cast<size_t>(std::ceil(kCacheBytes / bytes)) + 1;
    std::vector<std::pair<Tensor, Tensor>> caches;
    for (size_t i = 0; i < count; ++i) caches.emplace_back(ops->Upload(k.view()), ops->Upload(v.view()));
    const Tensor gpu_q = ops->Upload(q.view());
    const Tensor out = ops->Upload(expected.view());
    AttentionOptions options;
    options.scale = 1 / std::sqrt(static_cast<float>(head_dim));
    const auto attend = [&](size_t i) {
      ops->Attention(gpu_q.view, keys - 1, {0, 0, keys, caches[i].first.view, caches[i].second.view}, options,
                     out.view, *stream);
    };
    oracle->Attention(q.view(), keys - 1, {0, 0, keys, k.view(), v.view()}, options, expected.view(), *host_stream);
    attend(0);
    const double distance = Distance(out.view, expected.view());
    const double ms = Time([&](int i) { attend(static_cast<size_t>(i) % count); });
    Report(fmt::format("attention {}/{} heads of {}, {} keys", q_heads, kv_heads, head_dim, keys), bytes, ms,
           distance);
  }

  /// What lies between the products, at the width of a model: mostly the time from one launch to the next.
  void MeasureNorm(int64_t features) {
    HostNumbers row({1, features});
    const std::vector<float> ones(static_cast<size_t>(features), 1.0f);
    Norm norm;
    norm.epsilon = 1e-5f;
    norm.weight = ops->Upload({const_cast<float*>(ones.data()), DType::kF32, {features}});
    const Tensor x = ops->Upload(row.view());
    const Tensor out = ops->Upload(row.view());
    const double ms = Time([&](int) { ops->Normalize(x.view, norm, out.view, *stream); });
    fmt::print("{:<44} {:>8.1f} us\n", fmt::format("norm of {}", features), 1e3 * ms);
  }

  std::unique_ptr<Device> gpu;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Device> host;
  std::unique_ptr<Stream> host_stream;
  std::unique_ptr<Ops> oracle;
  double copy_rate = 0;
  mutable bool wrong = false;
};

int Main(int ordinal) {
  Bench bench(ordinal);
  bench.MeasureCopies();
  fmt::print("Llama-7B\n");
  bench.MeasureMatmul(4096, 12288, false);
  bench.MeasureMatmul(4096, 4096, false);
  bench.MeasureMatmul(4096, 22016, true);
  bench.MeasureMatmul(11008, 4096, false);
  bench.MeasureMatmul(4096, 32000, false);
  for (const int64_t keys : {1024, 4096, 16384}) bench.MeasureAttention(32, 32, 128, keys);
  bench.MeasureNorm(4096);
  fmt::print("Llama-3-8B\n");
  bench.MeasureMatmul(4096, 6144, false);
  bench.MeasureMatmul(4096, 28672, true);
  bench.MeasureMatmul(14336, 4096, false);
  for (const int64_t keys : {1024, 4096, 16384}) bench.MeasureAttention(32, 8, 128, keys);
  fmt::print("Falcon-7B\n");
  bench.MeasureMatmul(4544, 4672, false);
  bench.MeasureMatmul(4544, 4544, false);
  bench.MeasureMatmul(4544, 18176, false);
  bench.MeasureMatmul(18176, 4544, false);
  for (const int64_t keys : {1024, 8192}) bench.MeasureAttention(71, 1, 64, keys);
  return bench.wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}

}  // namespace
}  // namespace runahead

int main(int argc, char** argv) {
  if (runahead::CudaDeviceCount() == 0) {
    fmt::print(stderr, "decode_bench: there is no NVIDIA GPU\n");
    return EXIT_FAILURE;
  }
  return runahead::Main(argc > 1 ? std::atoi(argv[1]) : 0);
}
