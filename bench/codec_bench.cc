// How fast rows are encoded and decoded: GB/s of bf16 rows of 8 heads of 128 features, by format and threads. Each
// run's rows lie beyond the caches. Checks the error before it times.
//   codec_bench
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <vector>

#include "codec/row_codec.h"

namespace runahead {
namespace {

constexpr int64_t kRows = 32'768;
constexpr int64_t kHeads = 8;
constexpr int64_t kFeatures = 128;

struct Work {
  explicit Work(const benchmark::State& state)
      : codec(static_cast<WireFormat>(state.range(0)), state.range(1) != 0 ? RowKind::kValues : RowKind::kKeys,
              kHeads, kFeatures, DType::kBF16),
        team(static_cast<int>(state.range(2))),
        rows(static_cast<size_t>(kRows * kHeads * kFeatures)),
        back(rows.size()),
        bytes(codec.Bytes(4, 4 + kRows)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (BFloat16& x : rows) x = BFloat16(normal(random));
    Encode();
    Decode();
    double errors = 0;
    double squares = 0;
    for (size_t i = 0; i < rows.size(); i += 7) {
      const double x = static_cast<float>(rows[i]);
      errors += std::pow(x - static_cast<float>(back[i]), 2);
      squares += x * x;
    }
    if (!(std::sqrt(errors / squares) < 0.12)) std::abort();
  }
  void Encode() { codec.Encode(View(rows), 4, bytes, team); }
  void Decode() {
    if (!codec.Decode(bytes, 4, View(back), team).ok()) std::abort();
  }
  static TensorView View(std::vector<BFloat16>& of) { return {of.data(), DType::kBF16, {kRows, kHeads, kFeatures}}; }

  RowCodec codec;
  cpu::Team team;
  std::vector<BFloat16> rows;
  std::vector<BFloat16> back;
  std::vector<std::byte> bytes;
};

void BM_Encode(benchmark::State& state) {
  Work work(state);
  for (auto _ : state) work.Encode();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * work.rows.size() * sizeof(BFloat16)));
}
void BM_Decode(benchmark::State& state) {
  Work work(state);
  for (auto _ : state) work.Decode();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * work.rows.size() * sizeof(BFloat16)));
}
void Ways(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"format", "values", "threads"})->ArgsProduct({{1, 2, 3}, {0, 1}, {1, 2}})->UseRealTime();
}
BENCHMARK(BM_Encode)->Apply(Ways);
BENCHMARK(BM_Decode)->Apply(Ways);

}  // namespace
}  // namespace runahead

BENCHMARK_MAIN();
