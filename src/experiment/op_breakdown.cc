#include "experiment/op_breakdown.h"

#include <map>

#include "base/median.h"
#include "engine/engine_state.h"
#include "ops/timed_ops.h"
#include "tune/requests.h"

namespace runahead {
namespace {

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

std::vector<OpShare> MeasureOps(const Engine& engine, int64_t tokens) {
  const std::shared_ptr<EngineState> state = StateOf(engine);
  HeldEngine held = state->Hold();
  const Decoder& decoder = state->decoder();
  const std::vector<int32_t> prompt = RandomPrompt(tokens, decoder.spec().vocab, 0);
  const PositionTables& tables = held.PositionsFor(0, tokens, tokens);
  Rank& rank = state->rank(0);
  std::vector<OpTime> times;
  rank.Post([&] {
        KvCache cache(rank.device(), decoder.spec().kv_shape(decoder.compute_dtype()), tokens);
        Workspace& workspace = rank.WorkspaceFor(decoder, tokens);
        TimedOps ops(rank.ops());
        for (int run = 0; run < 2; ++run) {  // the first one warms up
          (void)ops.Take(rank.stream());
          const Chunk chunk{.tokens = prompt, .tables = &tables, .cache = cache};
          CHECK(decoder.Forward(chunk, workspace, ops, rank.stream()).ok());
        }
        times = ops.Take(rank.stream());
      })
      .get();
  return Summarise(times, decoder.spec().layers);
}

std::vector<OpShare> MeasureStepOps(const Engine& engine, int batch, int64_t context) {
  const std::shared_ptr<EngineState> state = StateOf(engine);
  HeldEngine held = state->Hold();
  const Decoder& decoder = state->decoder();
  const PositionTables& tables = held.PositionsFor(0, context + 1, context + 1);
  Rank& rank = state->rank(0);
  std::vector<OpTime> times;
  rank.Post([&] {
        const int64_t pages = PagesOf(context + 1);
        const KvCache cache(rank.device(), decoder.spec().kv_shape(decoder.compute_dtype()),
                            batch * pages * kPageRows);
        const int32_t token = 0;
        std::vector<std::vector<int32_t>> lists;
        std::vector<Chunk> chunks;
        for (int i = 0; i < batch; ++i) {
          std::vector<int32_t>& list = lists.emplace_back();
          for (int64_t page = 0; page < pages; ++page) list.push_back(static_cast<int32_t>(page * batch + i));
        }
        for (const std::vector<int32_t>& list : lists) {
          chunks.push_back({.tokens = std::span(&token, 1),
                            .begin = context,
                            .tables = &tables,
                            .cache = KvView(cache, PageTable(list))});
        }
        Workspace& workspace = rank.WorkspaceFor(decoder, batch, batch);
        TimedOps ops(rank.ops());
        for (int run = 0; run < 3; ++run) {  // the first ones warm up
          (void)ops.Take(rank.stream());
          CHECK(decoder.Forward(chunks, workspace, ops, rank.stream()).ok());
        }
        times = ops.Take(rank.stream());
      })
      .get();
  return Summarise(times, decoder.spec().layers);
}

DecodeMeasurement DecodingOf(const Measurement& measurement, const ModelFacts& facts) {
  const auto context = static_cast<double>(measurement.context);
  return {measurement.context, measurement.token_ms,
          static_cast<double>(facts.weight_bytes) + context * static_cast<double>(facts.kv_bytes_per_token)};
}

}  // namespace runahead
