#include "gpu_report.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/units.h"
#include "report/table.h"
#include "report/units.h"

namespace runahead::cli {
namespace {

constexpr double kTera = 1e12;

/// The share of its own ceiling that an operation reaches: the matmul's rate, or the copies'.
double ShareOfCeiling(const OpShare& op, const GpuReport& report) {
  const double seconds = op.ms / kMsPerSecond;
  return op.flops > 0 ? op.flops / seconds / report.matmul_rate : op.bytes / seconds / report.copy_rate;
}

/// Bytes per second as a token reads them, over half of what a copy moves: a copy also writes.
double ShareOfCopy(const DecodeMeasurement& decoding, const GpuReport& report) {
  return decoding.bytes / (decoding.MedianMs() / kMsPerSecond) / report.copy_rate;
}

}  // namespace

std::string ToText(const GpuReport& gpu) {
  using report::Align;
  std::vector<std::vector<std::string>> rows;
  for (const OpShare& op : gpu.breakdown) {
    const double seconds = op.ms / kMsPerSecond;
    const double rate = op.flops > 0 ? op.flops / seconds : op.bytes / seconds;
    rows.push_back({op.op, fmt::format("{:.3f}", op.ms), fmt::format("{:.1f} %", 100 * op.share),
                    fmt::format("{:.2f} {}", rate / kTera, op.flops > 0 ? "TFLOP/s" : "TB/s"),
                    fmt::format("{:.1f} %", 100 * ShareOfCeiling(op, gpu))});
  }
  std::string text =
      fmt::format("\none layer at {} tokens (ceilings: {:.0f} TFLOP/s, {:.2f} TB/s copied)\n",
                  report::Grouped(gpu.breakdown_context), gpu.matmul_rate / kTera, gpu.copy_rate / kTera);
  text += report::FormatTable({{"operation", Align::kLeft}, {"ms"}, {"of the layer"}, {"rate"}, {"of its ceiling"}},
                              rows);
  for (const DecodeMeasurement& decoding : gpu.decoding) {
    text += fmt::format(
        "\ndecoding behind {} tokens: {:.3f} ms per token (median of {}), {:.2f} GB read, {:.1f} % of the "
        "copy rate",
        report::Grouped(decoding.context), decoding.MedianMs(), decoding.ms.size(), decoding.bytes / 1e9,
        100 * ShareOfCopy(decoding, gpu));
  }
  return text + "\n";
}

std::string ToJsonText(const GpuReport& report) {
  Json ops = Json::array();
  for (const OpShare& op : report.breakdown) {
    ops.push_back({{"op", op.op},
                   {"ms", op.ms},
                   {"share", op.share},
                   {"flops", op.flops},
                   {"bytes", op.bytes},
                   {"share_of_ceiling", ShareOfCeiling(op, report)}});
  }
  Json decoding = Json::array();
  for (const DecodeMeasurement& measurement : report.decoding) {
    decoding.push_back({{"context", measurement.context},
                        {"ms", measurement.ms},
                        {"ms_median", measurement.MedianMs()},
                        {"bytes", measurement.bytes},
                        {"share_of_copy_rate", ShareOfCopy(measurement, report)}});
  }
  const Json json = {{"matmul_rate", report.matmul_rate},
                     {"copy_rate", report.copy_rate},
                     {"breakdown_context", report.breakdown_context},
                     {"layer", std::move(ops)},
                     {"decoding", std::move(decoding)}};
  return json.dump();
}

}  // namespace runahead::cli
