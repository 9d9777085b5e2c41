#include "experiment/matmul_ceiling.h"

#include <algorithm>
#include <barrier>
#include <cmath>
#include <numeric>
#include <random>
#include <thread>

#include "base/check.h"
#include "base/deadline.h"
#include "base/median.h"
#include "ops/cpu_kernels.h"
#include "tensor/cpu_device.h"
#include "worker/rank.h"

namespace runahead {
namespace {

constexpr double kCpuRoundSeconds = 0.2;
constexpr double kGpuRoundSeconds = 0.015;  // longest round, s, before a GPU lowers its clocks for the power it draws

/// A multiplication of [rows, in] by [in, out].
struct Size {
  int64_t rows;
  int64_t in;
  int64_t out;

  [[nodiscard]] double Flops() const {
    return 2 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out);
  }
};
constexpr Size kOnCpu{1024, 2048, 8192};
constexpr Size kOnGpu{8192, 8192, 8192};

/// Uniform numbers in host memory.
Tensor RandomMatrix(Device& host, DType dtype, int64_t rows, int64_t columns, unsigned seed) {
  Tensor tensor;
  tensor.memory = host.Allocate(static_cast<size_t>(rows * columns) * SizeOf(dtype));
  tensor.view = tensor.memory.View(dtype, {rows, columns});
  Dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    std::minstd_rand random(seed);
    T* element = tensor.view.As<T>();
    constexpr float kHalfRange = 1 << 30;
    for (int64_t i = 0; i < rows * columns; ++i) {
      element[i] = static_cast<T>(static_cast<float>(random()) / kHalfRange - 1.0F);
    }
  });
  return tensor;
}

/// The ranks, their weights, which those of one memory share, and each one's activations.
class Bench {
 public:
  Bench(const std::vector<RankDevice>& devices, int threads, DType compute)
      : size_(devices.front().gpu ? kOnGpu : kOnCpu), host_(MakeCpuDevice()) {
    const int ranks = static_cast<int>(devices.size());
    for (int i = 0; i < ranks; ++i) {
      const RankDevice& device = devices[static_cast<size_t>(i)];
      const std::vector<int> processors =
          device.gpu ? std::vector<int>() : ProcessorsOf(i, std::vector<int>(static_cast<size_t>(ranks), threads));
      ranks_.push_back(std::make_unique<Rank>(i, device, threads, processors));
    }
    const Tensor weights = RandomMatrix(*host_, compute, size_.out, size_.in, 1);
    for (const auto& rank : ranks_) {
      rank->Post([&] {
            if (linears_.empty() || devices.front().gpu) {
              linears_.push_back(rank->ops().Prepare({{{weights.view}, {}}}, compute));
            }
            const Linear* const linear = linears_.back().get();
            rank->ops().Tune(std::span(&linear, 1), size_.rows, compute, false, rank->stream());
            x_.push_back(OnDevice(*rank, RandomMatrix(*host_, compute, size_.rows, size_.in, 2)));
            y_.push_back(OnDevice(*rank, RandomMatrix(*host_, compute, size_.rows, size_.out, 3)));
          })
          .get();
    }
  }

  /// Seconds until the slowest rank has multiplied `times` times.
  double Round(int times) {
    std::barrier start(static_cast<std::ptrdiff_t>(ranks_.size()) + 1);
    std::vector<std::future<void>> done;
    for (size_t i = 0; i < ranks_.size(); ++i) {
      done.push_back(ranks_[i]->Post([&, i] {
        start.arrive_and_wait();
        const Linear& linear = linears_.size() == 1 ? *linears_.front() : *linears_[i];
        for (int n = 0; n < times; ++n) ranks_[i]->ops().Matmul(x_[i].view, linear, y_[i].view, ranks_[i]->stream());
        ranks_[i]->stream().Synchronize();
      }));
    }
    start.arrive_and_wait();
    const auto begin = Clock::now();
    for (std::future<void>& future : done) future.get();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  [[nodiscard]] double Flops() const { return size_.Flops() * static_cast<double>(ranks_.size()); }

 private:
  static Tensor OnDevice(Rank& rank, const Tensor& host) {
    Tensor tensor;
    tensor.memory = rank.device().Allocate(host.view.bytes());
    tensor.view = tensor.memory.View(host.view.dtype(), host.view.shape());
    rank.device().CopyFromHost(tensor.view.data(), host.view.data(), host.view.bytes(), rank.stream());
    return tensor;
  }

  Size size_;
  std::unique_ptr<Device> host_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<std::unique_ptr<Linear>> linears_;  // one for each GPU, or one for all processors
  std::vector<Tensor> x_;
  std::vector<Tensor> y_;
};

/// FLOP/s of `threads` threads that multiply registers side by side: the best of several rounds.
double MeasureRegisters(int threads, DType compute, int rounds) {
  constexpr double kSeconds = 0.05;
  constexpr int64_t kFew = 10000;
  const auto rate = [&](int64_t spins, double* flops) {
    const auto begin = Clock::now();
    *flops = SpinCpuMatmulKernel(compute, spins);
    return *flops / std::chrono::duration<double>(Clock::now() - begin).count();
  };
  double flops = 0;
  const double first = rate(kFew, &flops);
  const auto spins = static_cast<int64_t>(kFew * kSeconds * first / flops);
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    std::vector<double> rates(static_cast<size_t>(threads));
    std::vector<std::thread> workers;
    std::barrier start(threads);
    for (double& mine : rates) {
      workers.emplace_back([&] {
        double done = 0;
        start.arrive_and_wait();
        mine = rate(spins, &done);
      });
    }
    for (std::thread& worker : workers) worker.join();
    best = std::max(best, std::accumulate(rates.begin(), rates.end(), 0.0));
  }
  return best;
}

}  // namespace

double MatmulCeiling::Best() const { return *std::max_element(rates.begin(), rates.end()); }
double MatmulCeiling::Median() const { return MedianOf(rates); }

MatmulCeiling MeasureMatmulCeiling(const std::vector<RankDevice>& devices, int threads, DType compute, int rounds) {
  Bench bench(devices, threads, compute);
  bench.Round(1);
  const double first = bench.Round(1);
  const double seconds = devices.front().gpu ? kGpuRoundSeconds : kCpuRoundSeconds;
  const int times = std::max(1, static_cast<int>(std::ceil(seconds / first)));
  if (times > 1) bench.Round(times);
  const int ranks = static_cast<int>(devices.size());
  MatmulCeiling ceiling{ranks, {}, 0, 0};
  for (int round = 0; round < rounds; ++round) {
    ceiling.rates.push_back(bench.Flops() * times / bench.Round(times));
  }
  constexpr double kSustainedSeconds = 0.5;
  const int many = devices.front().gpu ? std::max(1, static_cast<int>(kSustainedSeconds / first)) : times;
  ceiling.sustained = bench.Flops() * many / bench.Round(many);
  if (!devices.front().gpu) ceiling.registers = MeasureRegisters(ranks * threads, compute, rounds);
  return ceiling;
}

double MeasureCopyRate(const RankDevice& device) {
  constexpr size_t kBytes = size_t{2} << 30;
  constexpr int kCopies = 5;
  Rank rank(0, device, 1, {});
  double best = 0;
  rank.Post([&] {
        const Buffer from = rank.device().Allocate(kBytes);
        const Buffer to = rank.device().Allocate(kBytes);
        for (int i = 0; i < kCopies; ++i) {
          const auto begin = rank.stream().NewMark();
          rank.device().Copy(to.data(), from.data(), kBytes, rank.stream());
          const auto end = rank.stream().NewMark();
          rank.stream().Synchronize();
          best = std::max(best, 2.0 * kBytes / (end->MillisecondsSince(*begin) * 1e-3));
        }
      })
      .get();
  return best;
}

}  // namespace runahead
