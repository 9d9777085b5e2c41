// One rank's part of a prompt phase.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "base/undisturbed.h"
#include "model/decoder.h"
#include "prefill/exchanges.h"

namespace runahead {

/// What a rank needs to prefill its chunk. Borrows everything.
struct RankPrefill {
  std::span<const int32_t> tokens;  // ids of the rank's chunk
  Strategy strategy = Strategy::kSingle;
  Topology topology = Topology::kChain;
  ExchangeContext exchange;  // rank, partition, cache, fabric
  bool draws = true;         // whether the last rank needs the logits of the partition's last token
  const Decoder* decoder = nullptr;
  const PositionTables* tables = nullptr;
  Workspace* workspace = nullptr;
  Ops* ops = nullptr;
  Stream* stream = nullptr;
  double slowdown = 1;  // MakeSlowExchange
  WorkClock work_clock = SecondsNow;
  const std::atomic<bool>* given_up = nullptr;  // set once another rank has failed; null: nobody tells
};

/// Runs the rank's chunk through all layers and waits until its device and its sends are done. On success the rows
/// the rank needs are in its cache, and the last rank's workspace holds the logits of the prompt's last position.
/// Fails when rows did not arrive in time, and at the next exchange once `given_up` is set.
Status PrefillRank(const RankPrefill& job);

/// Rows of a sequence of `tokens` that this rank's cache must have room for.
int64_t CacheRows(Strategy strategy, const Partition& partition, int rank);

}  // namespace runahead
