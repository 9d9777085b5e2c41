#include "gpu_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/json.h"
#include "matmul_ceiling.h"
#include "model/flops.h"
#include "ops/timed_ops.h"
#include "report/table.h"
#include "report/units.h"
#include "requests.h"

namespace runahead::cli {
namespace {

constexpr double kMillisecondsPerSecond = 1e3;
constexpr double kTera = 1e12;

/// The share of its own ceiling that an operation reaches: the matmul's rate, or the copies'.
double ShareOfCeiling(const OpShare& op, const GpuReport& report) {
  const double seconds = op.ms / kMillisecondsPerSecond;
  return op.flops > 0 ? op.flops / seconds / report.matmul_rate : op.bytes / seconds / report.copy_rate;
}

/// Bytes per second as a token reads them, over half of what a copy moves: a copy also writes.
double ShareOfCopy(const DecodeMeasurement& decoding, const GpuReport& report) {
  return decoding.bytes / (decoding.MedianMs() / kMillisecondsPerSecond) / report.copy_rate;
}

/// Calls of the same operation summed up, in the order of their first appearance, divided by the layers.
std::vector<OpShare> Summarise(const std::vector<OpTime>& times, int layers) {
  std::vector<OpShare> shares;
  std::map<std::string, size_t> index;
  double total = 0;
  for (const OpTime& time : times) {
    const auto [at, added] = index.emplace(time.op, shares.size());
    if (added) shares.push_back({time.op, 0, 0, 0, 0});
    OpShare& share = shares[at->second];
    share.ms += time.ms / layers;
    share.flops += time.flops / layers;
    share.bytes += time.bytes / layers;
    total += time.ms / layers;
  }
  for (OpShare& share : shares) share.share = share.ms / total;
  return shares;
}

}  // namespace

double DecodeMeasurement::MedianMs() const { return MedianOf(ms); }

std::vector<OpShare> MeasureOps(EngineState& engine, int64_t tokens) {
  const std::lock_guard lock(engine.busy());
  const Decoder& decoder = engine.decoder();
  const std::vector<int32_t> prompt = RandomPrompt(tokens, decoder.spec().vocab, 0);
  const PositionTables& tables = engine.PositionsFor(0, tokens, tokens);
  Rank& rank = engine.rank(0);
  std::vector<OpTime> times;
  rank.Post([&] {
        KvCache cache(rank.device(), decoder.spec().kv_shape(decoder.compute_dtype()), tokens);
        Workspace& workspace = rank.WorkspaceFor(decoder, tokens);
        TimedOps ops(rank.ops());
        NoExchange none;
        for (int run = 0; run < 2; ++run) {  // the first one warms up
          (void)ops.Take(rank.stream());
          CHECK(decoder.Forward(prompt, 0, LastLayer::kLastRow, tables, cache, none, workspace, ops, rank.stream())
                    .ok());
        }
        times = ops.Take(rank.stream());
      })
      .get();
  return Summarise(times, decoder.spec().layers);
}

DecodeMeasurement DecodingOf(const Measurement& measurement, const DecoderSpec& spec, DType compute) {
  const int64_t context = measurement.context;
  // A multiplication by each weight is two operations.
  const double weights = ChunkFlops(spec, context, context + 1, LastLayer::kLastRow).linear / 2;
  return {context, measurement.token_ms,
          weights * static_cast<double>(SizeOf(compute)) +
              static_cast<double>(context) * static_cast<double>(spec.kv_shape(compute).BytesPerToken())};
}

std::string ToText(const GpuReport& gpu) {
  using report::Align;
  std::vector<std::vector<std::string>> rows;
  for (const OpShare& op : gpu.breakdown) {
    const double seconds = op.ms / kMillisecondsPerSecond;
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
