#include "matmul_ceiling.h"

#include <algorithm>
#include <barrier>
#include <cmath>
#include <random>

#include "base/check.h"
#include "base/deadline.h"
#include "engine/devices.h"
#include "engine/rank.h"

namespace runahead::cli {
namespace {

constexpr int64_t kRows = 1024;
constexpr int64_t kIn = 2048;
constexpr int64_t kOut = 8192;
constexpr double kFlops = 2.0 * kRows * kIn * kOut;
constexpr double kRoundSeconds = 0.2;

Tensor RandomMatrix(Device& device, DType dtype, int64_t rows, int64_t columns, unsigned seed) {
  Tensor tensor;
  tensor.memory = device.Allocate(static_cast<size_t>(rows * columns) * SizeOf(dtype));
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

/// The ranks, the weights they share and each one's activations.
class Bench {
 public:
  Bench(int ranks, int threads, DType compute) {
    for (int i = 0; i < ranks; ++i) {
      ranks_.push_back(
          std::make_unique<Rank>(i, threads, ProcessorsOf(i, std::vector<int>(static_cast<size_t>(ranks), threads))));
    }
    ranks_.front()
        ->Post([&] {
          const Tensor weights = RandomMatrix(ranks_.front()->device(), compute, kOut, kIn, 1);
          linear_ = ranks_.front()->ops().Prepare({{{weights.view}, {}}}, compute);
        })
        .get();
    for (int i = 0; i < ranks; ++i) {
      x_.push_back(RandomMatrix(ranks_[static_cast<size_t>(i)]->device(), compute, kRows, kIn, 2));
      y_.push_back(RandomMatrix(ranks_[static_cast<size_t>(i)]->device(), compute, kRows, kOut, 3));
    }
  }

  /// Seconds until the slowest rank has multiplied `times` times.
  double Round(int times) {
    std::barrier start(static_cast<std::ptrdiff_t>(ranks_.size()) + 1);
    std::vector<std::future<void>> done;
    for (size_t i = 0; i < ranks_.size(); ++i) {
      done.push_back(ranks_[i]->Post([&, i] {
        start.arrive_and_wait();
        for (int n = 0; n < times; ++n)
          ranks_[i]->ops().Matmul(x_[i].view, *linear_, y_[i].view, ranks_[i]->stream());
      }));
    }
    start.arrive_and_wait();
    const auto begin = Clock::now();
    for (std::future<void>& future : done) future.get();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

 private:
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::unique_ptr<Linear> linear_;
  std::vector<Tensor> x_;
  std::vector<Tensor> y_;
};

}  // namespace

double MedianOf(std::vector<double> values) {
  CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double MatmulCeiling::Best() const { return *std::max_element(rates.begin(), rates.end()); }
double MatmulCeiling::Median() const { return MedianOf(rates); }

MatmulCeiling MeasureMatmulCeiling(int ranks, int threads, DType compute, int rounds) {
  Bench bench(ranks, threads, compute);
  const double first = bench.Round(1);
  const int times = std::max(1, static_cast<int>(std::ceil(kRoundSeconds / first)));
  if (times > 1) bench.Round(times);
  MatmulCeiling ceiling{ranks, {}};
  for (int round = 0; round < rounds; ++round) {
    ceiling.rates.push_back(kFlops * ranks * times / bench.Round(times));
  }
  return ceiling;
}

}  // namespace runahead::cli
