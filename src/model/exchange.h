// The one hook between the layers of a decoder and the other ranks.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "ops/ops.h"
#include "tensor/device.h"

namespace runahead {

/// The part of the attention map a strategy computes: queries of [begin, end) against keys [0, rows), rows >= end.
struct AttentionExtent {
  int64_t rows = 0;
  CausalWork causal = CausalWork::kSkip;
};

/// Called by the decoder between "my rows of this layer's K and V are written" and "attention reads rows [0, end)".
/// Implementations are the strategies (src/prefill/). Used by one thread.
class Exchange {
 public:
  virtual ~Exchange() = default;
  /// Rows [begin, end) of `layer` are written, ordered on `stream`. On success, work enqueued on `stream` afterwards
  /// sees rows [0, end).
  virtual Status LayerReady(int layer, Stream& stream) = 0;
  /// What attention reads after LayerReady, for a chunk that ends at `end`.
  [[nodiscard]] virtual AttentionExtent Extent(int64_t end) const { return {end, CausalWork::kSkip}; }
};

/// One rank, and the decode phase: nothing to exchange.
class NoExchange final : public Exchange {
 public:
  Status LayerReady(int /*layer*/, Stream& /*stream*/) override { return Status::Ok(); }
};

}  // namespace runahead
