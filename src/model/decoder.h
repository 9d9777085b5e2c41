// The forward pass of a decoder: one function for prefill on one rank, KV-Runahead, TSP and decode.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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
  Norm attention_norm;                      // [hidden]
  std::unique_ptr<Linear> qkv;              // parts: q [q_features, hidden] | k,v [2 * kv_features, hidden]
  std::optional<Norm> q_norm;               // [head_dim], norm of each query head
  std::optional<Norm> k_norm;               // [head_dim], norm of each key head
  std::unique_ptr<Linear> out;              // [hidden, q_features]
  std::optional<Norm> post_attention_norm;  // [hidden], norm of what attention adds
  std::optional<Norm> mlp_norm;             // [hidden]; none: the MLP reads what attention read
  std::unique_ptr<Linear> gate_up;          // [2 * ffn, hidden], gate first; ungated: [ffn, hidden]
  std::unique_ptr<Linear> down;             // [hidden, ffn]
  std::optional<Norm> post_mlp_norm;        // [hidden], norm of what the MLP adds
};

/// All weights of a model, ready for one memory. Immutable; shared by the ranks of that memory.
struct DecoderWeights {
  std::shared_ptr<const void> files;  // keeps mapped what the tensors below borrow
  Tensor embedding;                   // [vocab, hidden], the file's dtype
  std::vector<LayerWeights> layers;
  Norm final_norm;               // [hidden]
  std::unique_ptr<Linear> head;  // [vocab, hidden]
};

/// What attention knows of positions, for sequences up to a length, in one memory.
struct PositionTables {
  int64_t positions = 0;
  std::optional<RopeTable> rope;
  Tensor key_bias;  // [q_heads, positions], f32: ALiBi; or empty
};

/// What of the last layer is worth computing: KV-Runahead needs only keys and values from every rank but the last.
enum class LastLayer : uint8_t { kKeysAndValues, kLastRow };

/// A model ready to run on one memory. Immutable and shared; the mutable state of a pass is passed in.
class Decoder {
 public:
  Decoder(DecoderSpec spec, DType compute, DecoderWeights weights);

  [[nodiscard]] const DecoderSpec& spec() const { return spec_; }
  [[nodiscard]] DType compute_dtype() const { return compute_; }

  /// The same model in the memory of `ops`, whose device reaches this one's. Throws ConfigError when memory is short.
  [[nodiscard]] std::shared_ptr<const Decoder> CopyTo(Ops& ops) const;

  /// Bytes that MakePositions allocates.
  [[nodiscard]] size_t PositionBytes(int64_t positions) const;
  /// Tables for positions [0, positions) in the memory of `ops`. `long_sequence` asks for those that
  /// RopeSpec::IsLong sequences need.
  [[nodiscard]] PositionTables MakePositions(Ops& ops, int64_t positions, bool long_sequence) const;

  /// Lets `ops` find its fastest ways for this model's matmuls, and runs a short prompt and one more token through
  /// all layers, so that no later pass meets what only a first one does (libraries that load, kernels that are
  /// compiled). Waits for the device.
  void WarmUp(Ops& ops, Stream& stream) const;

  /// Runs tokens, which sit at positions [begin, begin + n) of the sequence, through all layers: appends their rows
  /// to `cache`, calls `exchange` once per layer, and with LastLayer::kLastRow leaves the logits of the last token in
  /// workspace.Logits(). Everything is enqueued on `stream`. Needs 0 < n <= workspace.rows(),
  /// begin + n <= cache.capacity() and tables.positions, and tokens within the vocabulary. Fails only when the
  /// exchange does.
  Status Forward(std::span<const int32_t> tokens, int64_t begin, LastLayer last_layer, const PositionTables& tables,
                 KvCache& cache, Exchange& exchange, Workspace& workspace, Ops& ops, Stream& stream) const;
  /// The same for the one token that `token` holds by then, with the whole cache on this device.
  void Forward(const ChosenToken& token, int64_t begin, const PositionTables& tables, KvCache& cache,
               Workspace& workspace, Ops& ops, Stream& stream) const;

 private:
  /// Attention once at each length that libraries may plan for, as far as the context reaches.
  void WarmUpAttention(const Workspace& workspace, Ops& ops, Stream& stream) const;

  /// Everything behind the embedding, which is in workspace.Hidden(n).
  Status RunLayers(int64_t begin, int64_t n, LastLayer last_layer, const PositionTables& tables, KvCache& cache,
                   Exchange& exchange, Workspace& workspace, Ops& ops, Stream& stream) const;
  void CheckPass(int64_t begin, int64_t n, const PositionTables& tables, const KvCache& cache,
                 const Workspace& workspace) const;

  DecoderSpec spec_;
  DType compute_;
  DecoderWeights weights_;
};

}  // namespace runahead
