// The forward pass of a decoder: one function for prefill on one rank, KV-Runahead, TSP and decode.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "kv/kv_cache.h"
#include "model/decoder_spec.h"
#include "model/exchange.h"
#include "model/workspace.h"
#include "ops/ops.h"

namespace runahead {

/// Weights of one layer, ready for one memory (the host's, or one GPU's).
struct LayerWeights {
  Norm attention_norm;              // [hidden]
  std::unique_ptr<Linear> qkv;      // parts: q [q_features, hidden] | k,v [2 * kv_features, hidden]
  std::unique_ptr<Linear> out;      // [hidden, q_features]
  Norm mlp_norm;                    // [hidden]
  std::unique_ptr<Linear> gate_up;  // [2 * ffn, hidden], gate first
  std::unique_ptr<Linear> down;     // [hidden, ffn]
};

/// All weights of a model, ready for one memory. Immutable; shared by the ranks of that memory.
struct DecoderWeights {
  std::shared_ptr<const void> files;  // keeps mapped what the tensors below borrow
  Tensor embedding;                   // [vocab, hidden], the file's dtype
  std::vector<LayerWeights> layers;
  Norm final_norm;               // [hidden]
  std::unique_ptr<Linear> head;  // [vocab, hidden]
};

/// What of the last layer is worth computing: KV-Runahead needs only keys and values from every rank but the last.
enum class LastLayer : uint8_t { kKeysAndValues, kLastRow };

/// A model ready to run on one memory. Immutable and shared; the mutable state of a pass is passed in.
class Decoder {
 public:
  Decoder(DecoderSpec spec, DType compute, DecoderWeights weights);

  [[nodiscard]] const DecoderSpec& spec() const { return spec_; }
  [[nodiscard]] DType compute_dtype() const { return compute_; }

  /// Angles for positions [0, positions) in the memory of `ops`.
  [[nodiscard]] RopeTable MakeRope(Ops& ops, int64_t positions) const;

  /// Runs tokens, which sit at positions [begin, begin + n) of the sequence, through all layers: appends their rows
  /// to `cache`, calls `exchange` once per layer, and with LastLayer::kLastRow leaves the logits of the last token in
  /// workspace.Logits(). Everything is enqueued on `stream`. Needs 0 < n <= workspace.rows(),
  /// begin + n <= cache.capacity() and rope.positions(), and tokens within the vocabulary. Fails only when the
  /// exchange does.
  Status Forward(std::span<const int32_t> tokens, int64_t begin, LastLayer last_layer, const RopeTable& rope,
                 KvCache& cache, Exchange& exchange, Workspace& workspace, Ops& ops, Stream& stream) const;

 private:
  DecoderSpec spec_;
  DType compute_;
  DecoderWeights weights_;
};

}  // namespace runahead
