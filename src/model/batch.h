// What one forward pass works on: chunks of any sequences, rows one after the other.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kv/kv_cache.h"
#include "model/exchange.h"
#include "ops/ops.h"

namespace runahead {

/// What attention knows of positions, for sequences up to a length, in one memory.
struct PositionTables {
  int64_t positions = 0;
  std::optional<RopeTable> rope;        // the main rope
  std::optional<RopeTable> query_rope;  // the main rope of queries that grow with their position; none: as keys
  std::optional<RopeTable> local_rope;
  Tensor key_bias;  // [q_heads, positions], f32: ALiBi; or empty
};

/// What of the last layer is worth computing: KV-Runahead needs only keys and values from every rank but the last.
enum class LastLayer : uint8_t { kKeysAndValues, kLastRow };

/// Consecutive tokens of one sequence: a part of its prompt, or one token of its answer. Borrows everything.
struct Chunk {
  std::span<const int32_t> tokens;
  const ChosenToken* chosen = nullptr;  // instead of `tokens`: the one token that it holds by then
  int64_t begin = 0;                    // position of the first token
  LastLayer last_layer = LastLayer::kLastRow;
  const PositionTables* tables = nullptr;
  KvView cache;
  Exchange* exchange = nullptr;  // null: all earlier rows are in `cache`

  [[nodiscard]] int64_t rows() const { return chosen != nullptr ? 1 : std::ssize(tokens); }
  [[nodiscard]] int64_t end() const { return begin + rows(); }
  [[nodiscard]] bool logits() const { return last_layer == LastLayer::kLastRow; }
};

}  // namespace runahead
