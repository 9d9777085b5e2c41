// The forward pass of a decoder: one function for prefill on one rank, KV-Runahead, TSP and decode.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/batch.h"
#include "model/decoder_spec.h"
#include "model/workspace.h"
#include "ops/ops.h"

namespace runahead {

/// The experts of one layer.
struct MixtureWeights {
  std::unique_ptr<Linear>
      router;                   // [scores, hidden]: a row for each expert to choose from, then the shared one's gate
  std::vector<Expert> experts;  // those to choose from, then the shared one
  Tensor choice_bias;           // [experts to choose from], f32; or empty
};

/// The maps of a layer's latent attention. A head's queries meet latent vectors instead of keys made of them: what is
/// the map of a key is applied to the query.
struct LatentWeights {
  std::unique_ptr<Linear> queries;  // [q_heads * query_dim, query_rank]; null without a query_rank
  std::unique_ptr<Linear> keys;     // a part for each head of queries, [rank, plain_dim]
  std::unique_ptr<Linear> values;   // a part for each head of queries, [value_dim, rank]
};

/// Weights of one layer, ready for one memory (the host's, or one GPU's).
struct LayerWeights {
  std::optional<Norm> attention_norm;  // [hidden]; none: attention reads the residual stream
  // Parts: q [q_features, hidden] | k,v [2 * kv_features, hidden]. With latent attention: what queries are made of,
  // or of all heads what turns and then the rest | the latent vector, then the key that turns.
  std::unique_ptr<Linear> qkv;
  std::optional<Norm> q_norm;  // of DecoderSpec::qk_norm; HeadSteps says of which features
  std::optional<Norm> k_norm;
  std::optional<LatentWeights> latent;
  Tensor sinks;                             // [q_heads], f32, of DecoderSpec::sinks; or empty
  std::unique_ptr<Linear> out;              // [hidden, attended_columns]
  std::optional<Norm> post_attention_norm;  // [hidden], norm of what attention adds
  std::optional<Norm>
      mlp_norm;  // [hidden]; none: the MLP reads the residual stream, in parallel order what attention read
  std::unique_ptr<Linear> gate_up;  // [2 * ffn, hidden], gate first; ungated: [ffn, hidden]; null with a mixture
  std::unique_ptr<Linear> down;     // [hidden, ffn]; null with a mixture
  std::optional<MixtureWeights> mixture;
  std::optional<Norm> post_mlp_norm;  // [hidden], norm of what the MLP adds
};

/// All weights of a model, ready for one memory. Immutable; shared by the ranks of that memory.
struct DecoderWeights {
  std::shared_ptr<const void> files;            // keeps mapped what the tensors below borrow
  WeightFormat format = WeightFormat::kStored;  // format of the layers' matrices
  Tensor embedding;                             // [vocab, hidden], the file's dtype
  Tensor positions;                             // [learned_positions, hidden], the compute dtype; or empty
  std::optional<Norm> embedding_norm;           // [hidden]
  std::vector<LayerWeights> layers;
  Norm final_norm;               // [hidden]
  std::unique_ptr<Linear> head;  // [vocab, hidden]
};

/// A model ready to run on one memory. Immutable and shared; the mutable state of a pass is passed in.
class Decoder {
 public:
  Decoder(DecoderSpec spec, DType compute, DecoderWeights weights);

  [[nodiscard]] const DecoderSpec& spec() const { return spec_; }
  [[nodiscard]] DType compute_dtype() const { return compute_; }
  [[nodiscard]] WeightFormat weight_format() const { return weights_.format; }

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

  /// Runs the chunks of `batch` through all layers together: appends their rows to their caches, calls each chunk's
  /// exchange once per layer, and leaves the logits of the last token of chunk i of those with LastLayer::kLastRow in
  /// row i of workspace.Logits. Everything is enqueued on `stream`. The rows of all chunks must be at most
  /// workspace.rows(), the wanted logits at most workspace.logit_rows(), the end of each chunk within its cache and
  /// tables, and tokens within the vocabulary. Fails only when an exchange does.
  Status Forward(std::span<const Chunk> batch, Workspace& workspace, Ops& ops, Stream& stream) const;
  Status Forward(const Chunk& chunk, Workspace& workspace, Ops& ops, Stream& stream) const {
    return Forward(std::span(&chunk, 1), workspace, ops, stream);
  }

 private:
  /// Lets `ops` find its fastest ways for this model's matmuls.
  void Tune(Ops& ops, Stream& stream) const;
  /// Attention once at each length that libraries may plan for, as far as the context reaches.
  void WarmUpAttention(const Workspace& workspace, Ops& ops, Stream& stream) const;

  void CheckChunk(const Chunk& chunk) const;
  /// The embeddings of all rows, into workspace.Hidden.
  void Embed(std::span<const Chunk> batch, Workspace& workspace, Ops& ops, Stream& stream) const;

  /// Adds the learned positions of each chunk to `hidden`, [rows, hidden], where the model has them.
  void AddPositions(std::span<const Chunk> batch, TensorView hidden, Ops& ops, Stream& stream) const;

  DecoderSpec spec_;
  DType compute_;
  DecoderWeights weights_;
};

}  // namespace runahead
