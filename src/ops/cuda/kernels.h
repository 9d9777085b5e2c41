// The launchers of our own kernels. Each enqueues and returns; shapes are checked by the caller (cuda_ops.cc).
#pragma once

#include <driver_types.h>

#include <cstdint>

#include "ops/ops.h"

namespace runahead::cuda {

/// Where a kernel is enqueued.
struct LaunchOn {
  cudaStream_t stream = nullptr;
  bool overlap = false;     // the GPU can start a kernel while the one before ends (compute capability 9.0 and newer)
  int multiprocessors = 1;  // multiprocessors of the GPU
};

/// Throws DeviceError when a launch or a call of the runtime was refused.
void CheckLaunch(cudaError_t error);

/// Few token ids, passed by value so that no copy precedes the kernel.
struct InlineTokens {
  static constexpr int kMost = 512;
  int32_t ids[kMost];
};

/// Ops::Embed; `tokens` in device memory.
void Embed(const LaunchOn& on, const int32_t* tokens, TensorView table, float scale, TensorView out);
void Embed(const LaunchOn& on, const InlineTokens& tokens, TensorView table, float scale, TensorView out);

/// Ops::Normalize.
void Normalize(const LaunchOn& on, TensorView x, const Norm& norm, TensorView out);

/// x += delta.
void Add(const LaunchOn& on, TensorView x, TensorView delta);
/// out = activation(gate) * up.
void GatedActivation(const LaunchOn& on, Activation activation, TensorView gate_up, TensorView out);
/// out = activation(x).
void Activate(const LaunchOn& on, Activation activation, TensorView x, TensorView out);
/// x = cap * tanh(x / cap), f32.
void Softcap(const LaunchOn& on, TensorView x, float cap);

/// Where one row of a batch belongs.
struct RowPlace {
  int32_t position;  // position in its sequence
  int32_t row;       // row of the cache, from the first one's on
};

/// Ops::PrepareQueries: every head of q after `steps`, in place. places: [rows of q] in device memory, whose
/// positions count instead of `position`; or null.
void PrepareQueries(const LaunchOn& on, TensorView q, const HeadSteps& steps, int64_t position,
                    const RowPlace* places = nullptr);
/// Ops::AppendKv. places: [rows of k] in device memory, where each row goes, from the begin of rows.k and rows.v on;
/// or null.
void AppendKv(const LaunchOn& on, TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows,
              const RowPlace* places = nullptr);
/// Ops::PrepareHeads: both; an empty q is left out.
void PrepareHeads(const LaunchOn& on, const HeadRows& heads, const RowPlace* places = nullptr);

/// x[i] = x[rows[i]] for `count` rows that increase; rows: device memory.
void KeepRows(const LaunchOn& on, TensorView x, const int32_t* rows, int64_t count);

/// One row, or its norm, or a few rows times weights in GPU memory.
struct RowProduct {
  TensorView x;                   // [rows, in_features]
  const void* weights = nullptr;  // [out_features, in_features], the dtype of x, or with scales e4m3
  const float* scales = nullptr;  // [out_features], of e4m3 weights, which only rows in 16 bits have; or null
  const float* bias = nullptr;    // [out_features], or null
  const Norm* norm = nullptr;     // norm of x; null: none
  TensorView normalized;          // [1, in_features]: where the norm's result goes; not x
};

/// y = x W^T + b. y: [1, out_features] of the dtype of x or f32.
void MultiplyRow(const LaunchOn& on, const RowProduct& product, TensorView y);
/// sum += x W^T + b. sum: [1, out_features] of the dtype of x.
void MultiplyRowAndAdd(const LaunchOn& on, const RowProduct& product, TensorView sum);
/// y = activation(x W^T + b), or with `gated` Ops::MatmulActivate's product of two. y: [1, features] of the dtype of
/// x.
void MultiplyRowAndActivate(const LaunchOn& on, const RowProduct& product, Activation activation, bool gated,
                            TensorView y);
/// Ops::ProjectHeads, leaving k and v of `heads` unwritten; or returns false, having done nothing, where it does not
/// do these sizes or steps.
bool MultiplyRowIntoHeads(const LaunchOn& on, const RowProduct& product, const HeadRows& heads);

/// Most rows of the three below.
inline constexpr int64_t kMostFewRows = 8;
/// The same of a few rows without a norm; or return false, having done nothing, where they do not do these sizes.
bool MultiplyFewRows(const LaunchOn& on, const RowProduct& product, TensorView y);
bool MultiplyFewRowsAndAdd(const LaunchOn& on, const RowProduct& product, TensorView sum);
bool MultiplyFewRowsAndActivate(const LaunchOn& on, const RowProduct& product, Activation activation, bool gated,
                                TensorView y);

/// x[i][k] is about codes[i][k] * scales[i] with e4m3 codes, rounded to nearest even. A row with a number that is not
/// finite has scale NaN; one without any of magnitude 2^-100 is zeros. codes: [rows, features], scales: [rows],
/// device memory aligned to 16 bytes; features: a multiple of kFp8Multiple. `given`: the scales are there already.
void Quantise(const LaunchOn& on, TensorView x, void* codes, float* scales, bool given = false);

/// Ops::Normalize and Quantise of its result; or returns false, having done nothing, where it does not do these
/// sizes. The same of Ops::GatedActivation.
bool NormalizeAndQuantise(const LaunchOn& on, TensorView x, const Norm& norm, TensorView out, void* codes,
                          float* scales);
bool ActivateAndQuantise(const LaunchOn& on, Activation activation, TensorView gate_up, TensorView out, void* codes,
                         float* scales);

/// Sums of products of codes, in device memory: each is multiplied by the scales of its row and column.
struct ScaledSums {
  const float* sums;           // [rows, columns]
  int64_t stride;              // distance of rows
  const float* row_scales;     // [rows]
  const float* column_scales;  // [columns]
};
/// y = sums + b, or with `adds` y += sums + b. bias: [columns], or null.
void FinishSums(const LaunchOn& on, const ScaledSums& sums, const float* bias, bool adds, TensorView y);

/// Memory of the attention kernels that split the keys: partial results and counters that are zero between calls.
struct SplitScratch {
  static constexpr int kItems = 8;         // queries that share a block, at most
  static constexpr int kMaxHeadDim = 256;  // most elements of a head
  int blocks = 0;                          // most blocks of a launch with splits
  float* partial = nullptr;                // [blocks, kBlockFloats]
  unsigned* counters = nullptr;            // [blocks]
  int multiprocessors = 0;
  static constexpr int kBlockFloats = kItems * (kMaxHeadDim + 8);  // most floats that a block leaves for the last one
  [[nodiscard]] static size_t PartialBytes(int blocks) {
    return static_cast<size_t>(blocks) * kBlockFloats * sizeof(float);
  }
};

/// Ops::Attention of one query whose heads share keys and values, in 16 bits, on the tensor cores; or returns false,
/// having done nothing, where it does not do this shape, dtype or option.
bool DecodeAttention(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                     const AttentionOptions& options, TensorView out, const SplitScratch& scratch);

/// Ops::Attention for any shape and option with heads of at most SplitScratch::kMaxHeadDim: on the plain cores, keys
/// split over blocks when there are few queries. The first `settled` rows of `keys` are complete whatever kernels
/// still run when this one's blocks become resident. `aligned`: each query's sums have one order, whatever others are
/// asked with it; slower.
void SplitAttention(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                    const AttentionOptions& options, TensorView out, const SplitScratch& scratch, int64_t settled,
                    bool aligned);

/// Most features of a latent vector of AttendToLatents.
inline constexpr int kWidestLatent = 512;
/// Ops::Attention with AttentionOptions::rotated, whose keys have one head; no softcap, key bias or sinks. `aligned`:
/// as of SplitAttention.
void AttendToLatents(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                     const AttentionOptions& options, TensorView out, const SplitScratch& scratch, bool aligned);

/// The same of many queries, in 16 bits, on the tensor cores, each query's sums in one order; or returns false,
/// having done nothing, where it does not do this shape, dtype or option.
bool AttendManyToLatents(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                         const AttentionOptions& options, TensorView out);

/// Whether JoinHeads copies these rows of heads.
bool JoinsHeads(TensorView from);
/// Copies each head of `from` into the features of `to` from `offset` on. from: [n, heads, features], or one head for
/// all; to: [n, heads, at least offset + features]. All in whole 16 bytes.
void JoinHeads(const LaunchOn& on, TensorView from, TensorView to, int64_t offset);

/// Gives sinks their share of an attention made without: out[i, h] *= logistic(sums[h, i] - sinks[h]). sums:
/// [q_heads,
/// >= n], f32, logarithms of the sums of exp(score); sinks: [q_heads], f32; out: [n, q_heads, head_dim].
void AddSinks(const LaunchOn& on, TensorView sums, TensorView sinks, TensorView out);

/// Memory of Likeliest in a GPU; `done` is zero between calls.
struct LikeliestScratch {
  static constexpr int kMostBlocks = 64;
  unsigned long long best[kMostBlocks];
  unsigned done;
  int32_t token;  // the result: -1 when a logit is not a number
};

/// The index of the largest logit of each row, of equal ones the lowest. logits: [n, vocab], f32. scratch: [n].
/// host_tokens: [n], page-locked memory, written too.
void Likeliest(const LaunchOn& on, TensorView logits, LikeliestScratch* scratch, int32_t* host_tokens);

/// to[i] = from[i] for `elements` contiguous elements of any two dtypes.
void Convert(const LaunchOn& on, const void* from, DType from_dtype, void* to, DType to_dtype, int64_t elements);
/// to[i] = values[i] for at most 16 integers, which travel with the launch. to: device memory.
void WriteIntegers(const LaunchOn& on, const int32_t* values, int count, int32_t* to);
/// Uniform random numbers in [-1, 1).
void FillRandom(const LaunchOn& on, void* to, DType dtype, int64_t elements, uint32_t seed);

}  // namespace runahead::cuda
