// Mixtures of experts on a GPU against the oracle, in any company of rows.
#include "tests/ops/cuda/cuda_testing.h"

namespace runahead::testing {
namespace {

struct Case {
  DType dtype;
  int64_t rows;
  int64_t hidden;
  std::vector<int64_t> features;  // of each expert; with a shared one its own last
  Mixture wanted;
  int64_t gates = 0;    // columns of the scores behind those of the experts
  bool biased = false;  // experts have biases
};

class CudaMixtureTest : public CudaOpsTest {
 protected:
  void Compare(const Case& c) {
    const int64_t choices = std::ssize(c.features) - (c.wanted.shared ? 1 : 0);
    HostTensor x(c.dtype, {c.rows, c.hidden});
    HostTensor scores(DType::kF32, {c.rows, choices + c.gates});
    HostTensor sum(c.dtype, {c.rows, c.hidden});
    HostTensor bias(DType::kF32, {choices});
    x.Randomise(random);
    scores.Randomise(random, 2);
    sum.Randomise(random);
    bias.Randomise(random);
    const Mirror x_mirror = Put(x);
    const Mirror scores_mirror = Put(scores);
    const Mirror bias_mirror = Put(bias);
    const auto seed = random();
    const auto run = [&](Ops& ops, Device& place, Stream& on, TensorView rows, TensorView row_scores,
                         TensorView biases, TensorView total, int64_t step) {
      std::mt19937 same(seed);
      const std::vector<Expert> experts = RandomExperts(ops, same, c.dtype, c.hidden, c.features, c.biased);
      Mixture mixture = c.wanted;
      mixture.experts = experts;
      if (mixture.routing.logistic) mixture.choice_bias = {biases.data(), DType::kF32, {choices}};
      const int64_t widest = *std::max_element(c.features.begin(), c.features.end());
      const int64_t slots = c.rows * mixture.active();
      std::vector<Buffer> memory;
      const auto room = [&](int64_t count, int64_t columns) {
        memory.push_back(place.Allocate(static_cast<size_t>(count * columns) * SizeOf(c.dtype)));
        return memory.back().View(c.dtype, {count, columns});
      };
      const MixtureMemory room_for{room(c.rows, c.hidden), room(c.rows, 2 * widest), room(c.rows, widest),
                                   room(slots, c.hidden), room(slots, c.features.front())};
      for (int64_t row = 0; row < c.rows; row += step) {
        const int64_t end = std::min(row + step, c.rows);
        ops.AddMixture(rows.Rows(row, end), row_scores.Rows(row, end), mixture, room_for, total.Rows(row, end), on);
      }
      on.Synchronize();
    };
    HostTensor expected = sum;
    run(*oracle, *device, *stream, x.view(), scores.view(), bias.view(), expected.view(), c.rows);
    const auto on_gpu = [&](int64_t step) {
      HostTensor result = sum;
      Mirror mirror = Put(result);
      run(*gpu, *gpu_device, *gpu_stream, x_mirror.view(), scores_mirror.view(), bias_mirror.view(), mirror.view(),
          step);
      mirror.Fetch();
      return result;
    };
    const std::string what = fmt::format("{} {}x{} {} of {}{}", Name(c.dtype), c.rows, c.hidden, c.wanted.chosen,
                                         choices, c.wanted.shared ? " and one shared" : "");
    const HostTensor actual = on_gpu(c.rows);
    // Three roundings of numbers around 1 in each expert, whose weights sum to 1, times a scale, or with a shared one
    // to 2.
    const double tolerance = SumTolerance(c.dtype, c.hidden, 2 * std::max(1.0f, c.wanted.routing.scale));
    ExpectNear(
        actual, expected, [&](int64_t, int64_t) { return tolerance; }, what);
    if (c.wanted.shared) return;  // cuBLASLt chooses by the number of rows
    for (const int64_t step : {int64_t{1}, int64_t{29}}) {
      HostTensor pieces = on_gpu(step);
      HostTensor whole = actual;
      EXPECT_TRUE(pieces.memory() == whole.memory()) << what << ", " << step << " rows at a time";
    }
  }

  static Mixture Choosing(int64_t chosen, bool shared = false, bool renormalise = false, Routing routing = {}) {
    Mixture mixture;
    mixture.chosen = chosen;
    mixture.shared = shared;
    mixture.renormalise = renormalise;
    mixture.routing = routing;
    return mixture;
  }
};

TEST_F(CudaMixtureTest, MatchesOracle) {
  for (const DType dtype : kAllDTypes) {
    const std::vector<int64_t> eight(8, 96);
    std::vector<int64_t> shared = eight;
    shared.push_back(200);
    for (const int64_t rows : {1, 5, 60, 700}) {
      Compare({dtype, rows, 128, eight, Choosing(2, false, true)});
      Compare({dtype, rows, 128, shared, Choosing(3, true), 1});
    }
    Compare({dtype, 333, 50, std::vector<int64_t>(5, 9), Choosing(5)});  // rows that vectors do not fit
    Compare({dtype, 90, 72, std::vector<int64_t>(1, 40), Choosing(1)});  // one expert
    Compare({dtype, 200, 264, std::vector<int64_t>(128, 72), Choosing(8, false, true)});
    Compare({dtype, 3, 64, std::vector<int64_t>(256, 24), Choosing(31)});
  }
}

TEST_F(CudaMixtureTest, RoutesAsTheOracleDoes) {
  const Routing logistic{.logistic = true, .scale = 1.5f};
  const Routing grouped{.logistic = true, .groups = 8, .chosen_groups = 4, .group_best = 2, .scale = 2.5f};
  const Routing of_best{.groups = 6, .chosen_groups = 2};
  for (const DType dtype : kAllDTypes) {
    Compare({dtype, 150, 64, std::vector<int64_t>(40, 32), Choosing(6, false, true, logistic)});
    Compare({dtype, 150, 64, std::vector<int64_t>(64, 32), Choosing(8, false, true, grouped)});
    Compare({dtype, 150, 64, std::vector<int64_t>(66, 32), Choosing(3, false, false, of_best)});
  }
}

TEST_F(CudaMixtureTest, ActivatesByEachFunction) {
  for (const Activation activation : kAllActivations) {
    Mixture mixture = Choosing(2);
    mixture.activation = activation;
    Compare({DType::kBF16, 40, 64, std::vector<int64_t>(4, 64), mixture});
    Compare({DType::kF32, 40, 64, std::vector<int64_t>(4, 64), mixture});
  }
}

TEST_F(CudaMixtureTest, ClampsGatesAndAddsBiases) {
  Mixture clamped = Choosing(2, false, true);
  clamped.clamped = {.slope = 1.702f, .limit = 1.5f};  // a limit that every tenth number meets
  for (const DType dtype : kAllDTypes) {
    for (const int64_t rows : {1, 60, 700}) {
      Compare({dtype, rows, 128, std::vector<int64_t>(8, 96), clamped, 0, true});
      Compare({dtype, rows, 50, std::vector<int64_t>(5, 9), clamped, 0, true});
      Compare({dtype, rows, 128, std::vector<int64_t>(8, 96), Choosing(2), 0, true});
    }
  }
}

}  // namespace
}  // namespace runahead::testing
