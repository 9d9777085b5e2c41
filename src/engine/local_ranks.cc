#include "engine/local_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/engine_group.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// Bytes of a rank's cache where nobody says: of what is free a share for each rank of this memory, less what steps
/// need. On the host half is left to others.
size_t FreeShare(EngineState& engine, int rank) {
  constexpr size_t kReserve = size_t{1} << 30;  // bytes for libraries and what they allocate later
  const int first = engine.first_rank();
  Rank& own = engine.rank(rank);
  size_t sharing = 0;
  for (int i = first; i < first + engine.local_ranks(); ++i) sharing += engine.rank(i).gpu() == own.gpu() ? 1 : 0;
  sharing *= static_cast<size_t>(engine.processes_here());
  const size_t free = own.gpu() ? own.device().FreeBytes() : own.device().FreeBytes() / 2;
  const Decoder& decoder = engine.decoder(rank);
  const int64_t rows = std::min(kMostRows, decoder.spec().max_positions);
  const size_t needed = sharing * own.MissingWorkspaceBytes(decoder, rows) +
                        2 * decoder.PositionBytes(decoder.spec().max_positions) + (own.gpu() ? kReserve : 0);
  return free > needed ? (free - needed) / sharing : 0;
}

std::vector<KvCache> MakeCaches(EngineState& engine, size_t asked) {
  std::vector<size_t> bytes;  // all before any is made
  const int first = engine.first_rank();
  const int end = first + engine.local_ranks();
  for (int rank = first; rank < end; ++rank) bytes.push_back(asked > 0 ? asked : FreeShare(engine, rank));
  std::vector<KvCache> caches;
  for (int rank = first; rank < end; ++rank) {
    const size_t here = bytes[static_cast<size_t>(rank - first)];
    const Decoder& decoder = engine.decoder(rank);
    const KvShape shape = decoder.spec().kv_shape(decoder.compute_dtype());
    const size_t page_bytes = shape.BytesPerToken() * static_cast<size_t>(kPageRows);
    const size_t pages = std::min<size_t>(here / page_bytes, size_t{1} << 24);
    if (pages == 0) {
      throw ConfigError(fmt::format("kv memory: {} bytes on rank {} hold no page of {} tokens, which takes {} bytes",
                                    here, rank, kPageRows, page_bytes));
    }
    try {
      caches.emplace_back(engine.rank(rank).device(), shape, static_cast<int64_t>(pages) * kPageRows);
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("kv memory of rank {}: {}", rank, error.what()));
    }
  }
  return caches;
}

/// Time of all waits, s.
double WaitsIn(const std::vector<TimelineEvent>& timeline) {
  double ms = 0;
  for (const TimelineEvent& event : timeline) {
    if (event.activity == Activity::kWait) ms += event.end_ms - event.begin_ms;
  }
  return ms * 1e-3;
}

}  // namespace

LocalRanks::LocalRanks(const HeldEngine& held, size_t kv_memory)
    : engine_(held.engine()), caches_(MakeCaches(engine_, kv_memory)) {
  for (int i = 0; i < engine_.local_ranks(); ++i) {
    const int rank = engine_.first_rank() + i;
    const KvCache& cache = caches_[static_cast<size_t>(i)];
    workers_.emplace_back(engine_.rank(rank), engine_.decoder(rank), cache, held.TablesOf(rank), engine_.timeout());
    if (engine_.group() != nullptr && !engine_.on_gpus()) engine_.group()->processes->Register(cache.memory());
  }
}

LocalRanks::~LocalRanks() {
  if (engine_.group() == nullptr || engine_.on_gpus()) return;
  for (const KvCache& cache : caches_) engine_.group()->processes->Forget(cache.memory());
}

int32_t LocalRanks::Pages(int rank) const {
  return static_cast<int32_t>(caches_.at(IndexOf(rank)).capacity() / kPageRows);
}

void LocalRanks::Post(int rank, StepPlan plan, std::shared_ptr<MeteredFabric> fabric,
                      std::function<void(StepResult)> answer) {
  auto shared = std::make_shared<const StepPlan>(std::move(plan));
  (void)engine_.rank(rank).Post(
      [&worker = workers_.at(IndexOf(rank)), shared, fabric = std::move(fabric), answer = std::move(answer)] {
        StepResult result = worker.Run(*shared, fabric.get());
        if (fabric != nullptr) {
          const MeteredFabric::Meter& meter = fabric->Of(shared->member);
          result.bytes_sent = meter.bytes_sent;
          result.wait_s = std::max(meter.wait_s, WaitsIn(result.timeline));
        }
        answer(std::move(result));
      });
}

}  // namespace runahead
