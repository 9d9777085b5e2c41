#include "prefill/prefill.h"

#include <utility>

#include "prefill/slow_exchange.h"

namespace runahead {

Status PrefillRank(const RankPrefill& job) {
  const Partition& partition = *job.exchange.partition;
  const int rank = job.exchange.rank;
  const bool last = rank + 1 == partition.ranks();
  const int64_t begin = partition.begin(rank);
  const auto chunk = job.prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(partition.rows(rank)));

  std::unique_ptr<PrefillExchange> exchange = MakeExchange(job.strategy, job.topology, job.exchange);
  if (job.slowdown > 1) exchange = MakeSlowExchange(std::move(exchange), job.slowdown, job.work_clock);
  exchange->Start(*job.stream);
  const LastLayer last_layer = last ? LastLayer::kLastRow : LastLayer::kKeysAndValues;
  Status status = job.decoder->Forward(chunk, begin, last_layer, *job.tables, *job.exchange.cache, *exchange,
                                       *job.workspace, *job.ops, *job.stream);
  if (!status.ok()) return status;
  return exchange->Finish(*job.stream);
}

int64_t CacheRows(Strategy strategy, const Partition& partition, int rank) {
  switch (strategy) {
    case Strategy::kSingle:
    case Strategy::kRunahead:
      return partition.end(rank);
    case Strategy::kTspDense:
    case Strategy::kTspCausal:
      return partition.tokens();
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown strategy");
}

}  // namespace runahead
