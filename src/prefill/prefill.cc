#include "prefill/prefill.h"

#include <utility>

#include "prefill/slow_exchange.h"

namespace runahead {
namespace {

/// Ends a rank's work at its next exchange once another rank has failed.
class EndingExchange final : public PrefillExchange {
 public:
  EndingExchange(std::unique_ptr<PrefillExchange> inner, const std::atomic<bool>& given_up)
      : inner_(std::move(inner)), given_up_(given_up) {}

  void Start(Stream& stream) override { inner_->Start(stream); }
  Status LayerReady(int layer, Stream& stream) override {
    if (given_up_) return Status::Failed("another rank has failed");
    return inner_->LayerReady(layer, stream);
  }
  [[nodiscard]] AttentionExtent Extent(int64_t end) const override { return inner_->Extent(end); }
  Status Finish(Stream& stream) override { return inner_->Finish(stream); }

 private:
  std::unique_ptr<PrefillExchange> inner_;
  const std::atomic<bool>& given_up_;
};

}  // namespace

Status PrefillRank(const RankPrefill& job) {
  const Partition& partition = *job.exchange.partition;
  const int rank = job.exchange.rank;
  const bool last = rank + 1 == partition.ranks();
  const int64_t begin = partition.begin(rank);
  CHECK_EQ(std::ssize(job.tokens), partition.rows(rank));

  std::unique_ptr<PrefillExchange> exchange = MakeExchange(job.strategy, job.topology, job.exchange);
  if (job.given_up != nullptr) exchange = std::make_unique<EndingExchange>(std::move(exchange), *job.given_up);
  if (job.slowdown > 1) {
    exchange = MakeSlowExchange(std::move(exchange), job.slowdown, job.work_clock, job.given_up);
  }
  exchange->Start(*job.stream);
  const LastLayer last_layer = last && job.draws ? LastLayer::kLastRow : LastLayer::kKeysAndValues;
  const Chunk work{.tokens = job.tokens,
                   .begin = begin,
                   .last_layer = last_layer,
                   .tables = job.tables,
                   .cache = job.exchange.cache,
                   .exchange = exchange.get()};
  Status status = job.decoder->Forward(work, *job.workspace, *job.ops, *job.stream);
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
