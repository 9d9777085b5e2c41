// The memory a forward pass works in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/decoder_spec.h"
#include "ops/ops.h"
#include "tensor/device.h"
#include "tensor/tensor_view.h"

namespace runahead {

/// Rows of one step of an MLP unless told otherwise. Its intermediate tensors are the widest of a layer, so they
/// exist for one block of rows at a time; 2048 rows keep a processor's matmul at its full rate (Ops::PreferredRows).
inline constexpr int64_t kMlpBlockRows = 2048;

/// Rows of each block when n rows go through the MLP: at most `most`, and equal up to the last block.
int64_t MlpBlockRows(int64_t n, int64_t most = kMlpBlockRows);

/// Memory of one rank for forward passes of at most `rows` tokens, with logits of at most `logit_rows` of them: one
/// allocation. Tensors that are never needed at the same time share it: GateUp and Activated lie where Qkv and
/// Attended were. Not thread-safe.
class Workspace {
 public:
  /// Throws ConfigError naming the size when the device has no room.
  Workspace(Device& device, const DecoderSpec& spec, DType compute, int64_t rows, int64_t block_rows = kMlpBlockRows,
            int64_t logit_rows = 1);

  [[nodiscard]] int64_t rows() const { return rows_; }
  [[nodiscard]] int64_t block_rows() const { return block_rows_; }  // most rows of a step of an MLP
  /// Most rows of a step of latent attention, whose queries are many times as wide as a row.
  [[nodiscard]] int64_t latent_rows() const { return latent_queries_.rows(); }
  [[nodiscard]] int64_t logit_rows() const { return logits_.rows(); }  // most rows whose logits a pass gives
  /// Bytes that the constructor allocates.
  [[nodiscard]] static size_t Bytes(const DecoderSpec& spec, DType compute, int64_t rows,
                                    int64_t block_rows = kMlpBlockRows, int64_t logit_rows = 1);

  // The first n rows of each tensor; n is at most rows(), for the MLP's also at most block_rows().
  [[nodiscard]] TensorView Hidden(int64_t n) const { return hidden_.Rows(0, n); }  // [n, hidden]: the residual stream
  [[nodiscard]] TensorView Normalized(int64_t n) const { return normalized_.Rows(0, n); }  // [n, hidden]
  [[nodiscard]] TensorView Qkv(int64_t n) const { return qkv_.Rows(0, n); }  // [n, query_columns + kv_columns]
  [[nodiscard]] TensorView Attended(int64_t n) const { return attended_.Rows(0, n); }  // [n, attended_columns]
  /// [n, q_heads * query_dim], of models with LatentSpec::query_rank.
  [[nodiscard]] TensorView Queries(int64_t n) const { return queries_.Rows(0, n); }
  /// [n, q_heads * rank] each, of models with latent attention: queries as wide as latent vectors, and what they
  /// attend to, of at most latent_rows().
  [[nodiscard]] TensorView LatentQueries(int64_t n) const { return latent_queries_.Rows(0, n); }
  [[nodiscard]] TensorView LatentAttended(int64_t n) const { return latent_attended_.Rows(0, n); }
  /// [n, hidden]: a block's share of Hidden.
  [[nodiscard]] TensorView Delta(int64_t n) const { return delta_.Rows(0, n); }
  [[nodiscard]] TensorView GateUp(int64_t n) const { return gate_up_.Rows(0, n); }       // [n, mlp_in_features]
  [[nodiscard]] TensorView Activated(int64_t n) const { return activated_.Rows(0, n); }  // [n, widest_ffn]
  [[nodiscard]] TensorView Scores(int64_t n) const { return scores_.Rows(0, n); }        // [n, mixture.scores], f32
  /// The memory of a mixture of experts for n rows.
  [[nodiscard]] MixtureMemory Mixture(int64_t n) const {
    return {gathered_.Rows(0, n), GateUp(n), Activated(n),
            experts_out_.Rows(0, experts_out_.rows() / scores_.rows() * n),
            inner_.Rows(0, inner_.rows() / scores_.rows() * n)};
  }
  [[nodiscard]] TensorView Logits(int64_t n) const { return logits_.Rows(0, n); }  // [n, vocab], f32

 private:
  int64_t rows_;
  int64_t block_rows_;
  Buffer memory_;
  TensorView hidden_;
  TensorView normalized_;
  TensorView qkv_;
  TensorView attended_;
  TensorView queries_;
  TensorView latent_queries_;
  TensorView latent_attended_;
  TensorView delta_;
  TensorView gate_up_;
  TensorView activated_;
  TensorView scores_;
  TensorView gathered_;
  TensorView inner_;
  TensorView experts_out_;
  TensorView logits_;
};

}  // namespace runahead
