// What `runahead bench` says about its measurements.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "experiment/bench_run.h"
#include "experiment/machine.h"
#include "experiment/matmul_ceiling.h"
#include "gpu_report.h"

namespace runahead::cli {

struct BenchReport {
  std::string model;
  std::string dtype;
  std::string weights;  // format of weights: "stored", "int8", ...
  int threads_per_rank = 0;
  double allowed_difference = 0;  // see AllowedDifference
  MachineFacts machine;
  std::string device;                   // device of rank 0
  double load_s = 0;                    // time from the files to an engine that is ready, s
  std::vector<MatmulCeiling> ceilings;  // one for each number of ranks in use
  std::vector<Measurement> measurements;
  std::optional<GpuReport> gpu;  // report of a GPU; none on CPUs

  /// The best rate of as many ranks as the measurement used; none for more than this process has.
  [[nodiscard]] std::optional<double> CeilingOf(const Measurement& measurement) const;
  /// The single rank's median over this one's, at the same context.
  [[nodiscard]] double SpeedUp(const Measurement& measurement) const;
  /// Measurements whose logits are further from a single rank's than rounding explains.
  [[nodiscard]] std::vector<const Measurement*> Wrong() const;
};

/// "bf16", or with quantised weights "bf16, int8 weights".
std::string ArithmeticText(const std::string& dtype, const std::string& weights);

/// Lines that say what is measured and how fast matrices are multiplied.
std::string Heading(const BenchReport& report);
std::string Table(const BenchReport& report);
/// All raw repeats and the facts of the machine.
std::string ToJson(const BenchReport& report);
/// Median TTFT by context, a line for each combination.
std::string ToSvg(const BenchReport& report);

}  // namespace runahead::cli
