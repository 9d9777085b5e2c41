// The strategies: what happens between a layer's keys and values and its attention.
#pragma once

#include <memory>
#include <span>

#include "base/deadline.h"
#include "base/timeline.h"
#include "kv/kv_cache.h"
#include "link/all_gather.h"
#include "link/link.h"
#include "model/exchange.h"
#include "plan/partition.h"
#include "runahead/options.h"

namespace runahead {

/// What left a rank.
struct HandedRows {
  size_t bytes = 0;
  double bound = 0;  // largest error bound of its keys (RowCodec::Encode)
};

/// What an exchange works with. Borrows everything; one per rank and prompt.
struct ExchangeContext {
  int rank = 0;
  const Partition* partition = nullptr;
  std::span<const int64_t> windows;  // [layers], AttentionOptions::window of each; empty: all positions everywhere
  KvView cache;
  Fabric* fabric = nullptr;
  std::chrono::duration<double> timeout{0};  // longest duration of each wait
  RankTimeline* timeline = nullptr;          // null: nothing is recorded
  AllGather* gather = nullptr;               // all-gather of tsp; null: over the fabric's links
  std::span<const PageTable> pages;          // [ranks], where each has its rows; empty: straight everywhere
  std::span<const int64_t> held;             // [ranks], rows that each has already; empty: none, and none is needed
  std::span<const WireFormat> wire{};        // [ranks][ranks], from one to another; empty: all exact. CPU ranks alone
  int threads = 1;                           // threads of the rank, which encode and decode
  HandedRows* sent = nullptr;                // null: nobody counts

  [[nodiscard]] WireFormat FormatOf(int from, int to) const {
    if (wire.empty()) return WireFormat::kExact;
    return wire[static_cast<size_t>(from) * static_cast<size_t>(partition->ranks()) + static_cast<size_t>(to)];
  }
};

/// An exchange of one prompt phase: started before the first layer, finished after the last.
class PrefillExchange : public Exchange {
 public:
  /// Posts what layer 0 receives. `stream` is the one that LayerReady will be called with.
  virtual void Start(Stream& stream) = 0;
  /// Waits until the work of `stream` is done and everything sent has left, so that the cache may be reused.
  virtual Status Finish(Stream& stream) = 0;
};

/// kSingle and a partition of one rank exchange nothing.
std::unique_ptr<PrefillExchange> MakeExchange(Strategy strategy, Topology topology, const ExchangeContext& context);

}  // namespace runahead
