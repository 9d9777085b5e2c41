// The dozen operations a decoder needs. Each backend implements this interface; the CPU's plain scalar twin is the
// oracle for all.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv/kv_cache.h"
#include "ops/weight_format.h"
#include "tensor/device.h"
#include "tensor/tensor_view.h"

namespace runahead {

enum class NormKind : uint8_t { kRms, kLayer };
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu, kReluSquared };
inline constexpr Activation kAllActivations[] = {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
                                                 Activation::kRelu, Activation::kReluSquared};

/// How attention treats the positions that a query does not see: skipped, or computed and masked away (what the
/// paper's TSP baseline does).
enum class CausalWork : uint8_t { kSkip, kDense };

/// A tensor in device memory with its owner. The owner is empty when the memory belongs to a mapped file.
struct Tensor {
  Buffer memory;
  TensorView view;
};

/// Weights of a normalisation over `weight.rows()` features.
struct Norm {
  NormKind kind = NormKind::kRms;
  float epsilon = 0;
  Tensor weight;  // [features], f32
  Tensor bias;    // [features], f32, or empty
};

/// Rotation of each position: pairs (i, i + rotary_dim/2) of a head turn by angle(position, i). Heads wider than
/// rotary_dim pass the rest through.
struct RopeTable {
  Tensor cos;  // [positions, rotary_dim / 2], f32
  Tensor sin;  // [positions, rotary_dim / 2], f32

  [[nodiscard]] int64_t positions() const { return cos.view.rows(); }
  [[nodiscard]] int64_t rotary_dim() const { return 2 * cos.view.row_elements(); }
};

/// What happens to each head of q and k before attention: first the norm over its head_dim features (Qwen3), then the
/// rotation. Either may be absent. Borrows both.
struct HeadSteps {
  const Norm* norm = nullptr;       // weights of head_dim features for all heads, or [heads, head_dim]; null: no norm
  const RopeTable* rope = nullptr;  // null: no rotation
};

/// What becomes of a layer's queries, keys and values, of n positions from rows.begin on: q stays where it is, k and
/// v go into the cache.
struct HeadRows {
  TensorView q;  // [n, q_heads, head_dim]; empty: only keys and values are asked for
  TensorView k;  // [n, kv_heads, head_dim]
  TensorView v;  // [n, kv_heads, head_dim]
  HeadSteps query_steps;
  HeadSteps key_steps;
  KvSpan rows;  // rows of the cache
};

/// What prepares a Linear: matrices in host memory, stacked by output row.
struct LinearPart {
  std::vector<TensorView> weights;      // each [rows_i, in_features], any dtype, row-major
  std::vector<TensorView> biases;       // each [rows_i], any dtype; empty, or one for each of `weights`
  bool lasting = false;                 // the weights outlive the Linear, which may read them where they are
  std::vector<std::string> names = {};  // names of `weights`, for errors; or empty
  /// Of each of `weights` a scale for each row, [rows_i], where the weights are exactly e4m3 times these, which fp8
  /// then keeps; else an empty one. Or empty.
  std::vector<std::span<const float>> scales = {};
};

/// A weight matrix y = x W^T + b in the layout that its backend multiplies fastest. Made of parts (q | k,v for
/// instance) that can be applied together or alone. Immutable, shared by the ranks of one memory.
class Linear {
 public:
  virtual ~Linear() = default;
  [[nodiscard]] virtual int64_t in_features() const = 0;
  [[nodiscard]] virtual int parts() const = 0;
  /// Output features of parts [first, first + count).
  [[nodiscard]] virtual int64_t out_features(int first, int count) const = 0;
  [[nodiscard]] int64_t out_features() const { return out_features(0, parts()); }
};

/// The weights of an attention: softmax over visible positions of softcap(scale * q.k) + key_bias.
struct AttentionOptions {
  float scale = 1;
  int64_t window = 0;  // positions a query sees, its own included; 0: all
  float softcap = 0;   // cap * tanh(score / cap); 0: none
  /// [q_heads, >= rows of the keys], f32: added to the score of each key position (ALiBi, Press et al. 2022). Empty:
  /// none. Not together with a softcap.
  TensorView key_bias;
  CausalWork causal = CausalWork::kSkip;
  /// [n, q_heads, head_dim of k]: of multi-head latent attention (DeepSeek-V2, Liu et al. 2024, section 2.1), whose
  /// queries q are as wide as v; a score's dot product is q.v + rotated.k. Empty: it is q.k.
  TensorView rotated = {};
  /// [q_heads], f32: scores of one more position that every query sees, and whose value is 0 (StreamingLLM, Xiao et
  /// al. 2023, section 3.3). Empty: none.
  TensorView sinks = {};
};

/// The arguments of an attention, for several at once.
struct AttentionTask {
  TensorView q;  // [n, q_heads, head_dim]
  int64_t position = 0;
  KvRows keys;
  AttentionOptions options;
  TensorView out;  // [n, q_heads, head_dim of v]
};

/// One of the experts of a mixture: down(activation(gate) * up) of the rows that go through it.
struct Expert {
  std::unique_ptr<Linear> gate_up;  // [2 * ffn, hidden], gate first
  std::unique_ptr<Linear> down;     // [hidden, ffn]
};

/// How a row chooses its experts.
struct Routing {
  bool logistic = false;  // a share is the logistic function of the expert's score; otherwise of the softmax over all
  int64_t groups = 1;     // groups of experts that follow each other
  int64_t chosen_groups = 1;  // groups that a row chooses from: those of the highest sums of `group_best` shares
  int64_t group_best = 1;     // shares of a group that its sum has, the largest
  float scale = 1;            // factor of the weights
};

/// Experts that are down((up + 1) * gate * logistic(slope * gate)) of a gate up to `limit` and an up within it
/// (gpt-oss).
struct ClampedGate {
  float slope = 0;
  float limit = 0;  // 0: experts are as Expert says
};

/// How rows go through experts (Shazeer et al. 2017). An expert's weight is its share, of which Routing tells.
/// Borrows the experts.
struct Mixture {
  std::span<const Expert> experts;  // those to choose from, then the shared one, which every row goes through
  int64_t chosen = 0;               // experts of a row: those of the highest scores, of equal ones the first
  bool shared = false;              // there is a shared expert
  bool renormalise = false;         // weights are divided by the sum of the chosen ones'
  Routing routing;
  TensorView choice_bias;  // [choices], f32: added to shares where experts are chosen, not where they weigh; or empty
  Activation activation = Activation::kSilu;
  ClampedGate clamped;

  [[nodiscard]] int64_t choices() const { return std::ssize(experts) - (shared ? 1 : 0); }
  /// Experts that a row goes through.
  [[nodiscard]] int64_t active() const { return chosen + (shared ? 1 : 0); }
};

/// Experts of `choices` that at least one of n rows goes through, on average, when all are as likely.
double ExpertsMet(int64_t choices, int64_t chosen, int64_t rows);

/// What Ops::AddMixture works in for n rows, of the compute dtype.
struct MixtureMemory {
  TensorView gathered;   // [n, hidden]
  TensorView product;    // [n, at least twice the widest expert's features]
  TensorView activated;  // [n, at least the widest expert's features]
  TensorView results;    // [n * active, hidden]
  TensorView inner;      // [n * chosen, features of an expert to choose from]; may be where `activated` is
};

/// What happens to one row of queries.
struct QueryRow {
  HeadSteps steps;
  int64_t position = 0;
};

/// A place for a token that a device chooses by itself (Ops::ChooseLikeliest), so that the work on it can be enqueued
/// before the host knows it. Used by one thread at a time.
class ChosenToken {
 public:
  virtual ~ChosenToken() = default;
  /// Blocks the host until the last choice enqueued is made; -1 when a logit was not a number.
  virtual int32_t Wait() = 0;
};

/// What not every device can do.
struct Abilities {
  int64_t most_experts = 0;      // experts that Ops::AddMixture can choose from; 0: there are no mixtures
  bool clamped_gates = false;    // Mixture::clamped, and biases of experts
  int64_t widest_latent = 0;     // features of keys' vectors with AttentionOptions::rotated; 0: there is none
  bool sinks = false;            // AttentionOptions::sinks
  bool expands_latents = false;  // Ops::AttendToExpanded, in 16 bits
};
/// Of CPUs, which let all queries of latent attention meet the vectors, so that all rows are computed alike.
inline constexpr Abilities kCpuAbilities{INT64_MAX, true, INT64_MAX, true, false};

/// Operations of one rank on its device, enqueued on a stream in order. Shapes are programmer's duty (checked).
/// Activations and the KV-cache share one dtype, the compute dtype; accumulation is f32 or better. One thread at a
/// time uses an instance.
class Ops {
 public:
  virtual ~Ops() = default;

  [[nodiscard]] virtual Device& device() = 0;
  [[nodiscard]] virtual Abilities abilities() const { return {}; }

  // ---- Preparation, off the timed path

  /// Puts a host tensor where the device reads it: itself on the CPU (the caller keeps the memory alive), a copy
  /// elsewhere.
  virtual Tensor Upload(TensorView host) = 0;
  /// Prepares parts for matmuls whose activations have dtype `compute`: packs them, or leaves them where they are if
  /// they last. Throws ConfigError when memory is short, for a format that the device does not have, and naming the
  /// matrix for weights that are not finite in another format than kStored.
  virtual std::unique_ptr<Linear> Prepare(const std::vector<LinearPart>& parts, DType compute,
                                          WeightFormat format) = 0;
  std::unique_ptr<Linear> Prepare(const std::vector<LinearPart>& parts, DType compute) {
    return Prepare(parts, compute, WeightFormat::kStored);
  }
  /// Whether Prepare leaves lasting parts of matrices of this shape and dtype where they are; else it copies them.
  [[nodiscard]] virtual bool LeavesInPlace(const Shape& /*matrix*/, DType /*stored*/, DType /*compute*/) const {
    return false;
  }
  /// The dtype of weights that Prepare copies.
  [[nodiscard]] virtual DType WeightDType(DType compute) const { return compute; }
  /// A copy, in this device's memory, of weights that the same backend prepared on a device that this one Reaches;
  /// enqueued on `stream`. For devices other than the host.
  virtual std::unique_ptr<Linear> Copy(const Linear& /*from*/, Stream& /*stream*/) {
    CHECK(false);
    return nullptr;
  }
  /// Rows from which on a larger Matmul is no faster per row: the size of blocks worth cutting work into.
  [[nodiscard]] virtual int64_t PreferredRows() const {
    constexpr int64_t kRows = 2048;
    return kRows;
  }
  /// Finds, by trying, the fastest way to multiply about `rows` rows by all parts of weights of this shape, for
  /// Matmul or with `adds` for MatmulAdd. alike: weights of one shape, of which few rows need enough that no cache
  /// holds them. Slow; without it they guess. Backends without a choice do nothing.
  virtual void Tune(std::span<const Linear* const> /*alike*/, int64_t /*rows*/, DType /*result*/, bool /*adds*/,
                    Stream& /*stream*/) {}

  // ---- The decoder's steps

  /// out[i] = scale * table[tokens[i]]. table: [vocab, hidden] of any dtype; out: [n, hidden].
  virtual void Embed(std::span<const int32_t> tokens, TensorView table, float scale, TensorView out,
                     Stream& stream) = 0;

  /// out = norm(x) by rows. x, out: [n, features]; out may be x.
  virtual void Normalize(TensorView x, const Norm& norm, TensorView out, Stream& stream) = 0;
  /// x += delta. x, delta: [n, features].
  virtual void Add(TensorView x, TensorView delta, Stream& stream) = 0;

  /// y = x W^T + b over parts [first, first + count) of `linear`. x: [n, in]; y: [n, out_features(first, count)], of
  /// the compute dtype or f32.
  virtual void Matmul(TensorView x, const Linear& linear, int first, int count, TensorView y, Stream& stream) = 0;
  void Matmul(TensorView x, const Linear& linear, TensorView y, Stream& stream) {
    Matmul(x, linear, 0, linear.parts(), y, stream);
  }

  /// One part of `linear` for each head: y_h = x_h W_h^T + b_h. All parts are alike. x: [n, heads * in]; y: [n,
  /// heads * out], of the compute dtype.
  virtual void MatmulByHead(TensorView x, const Linear& linear, TensorView y, Stream& stream);

  /// Applies `steps` to every head of q in place, for positions [position, position + n). q: [n, q_heads, head_dim].
  virtual void PrepareQueries(TensorView q, const HeadSteps& steps, int64_t position, Stream& stream) = 0;
  /// Writes k, after `steps`, and v into `rows` (n rows from position rows.begin). k, v: [n, kv_heads, head_dim].
  virtual void AppendKv(TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows, Stream& stream) = 0;

  /// Causal attention of n queries at positions [position, position + n). q: [n, q_heads, head_dim]; out: [n,
  /// q_heads, head_dim of v], which is q's; `keys`: positions [0, rows), rows
  /// >= position + n. A query sees the positions up to its own (within the window); rows of `keys` that no query sees
  /// are not read. q_heads is a multiple of kv_heads; query head h reads kv head h / (q_heads / kv_heads). (Vaswani
  /// et al. 2017; online softmax: Milakov and Gimelshein 2018.)
  virtual void Attention(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options,
                         TensorView out, Stream& stream) = 0;

  /// Latent attention of many queries to each head's own keys and values, made of the latent vectors of all rows that
  /// they see: less work than to meet the vectors themselves with queries as wide (AttentionOptions::rotated). Of
  /// `task` q is [n, q_heads, plain_dim], options.rotated [n, q_heads, head_dim of k] and out [n, q_heads,
  /// value_dim]; `keys` and `values` have a part for each head, [rank, plain_dim] and [value_dim, rank]. Returns
  /// false where the backend does not do it, or memory is short; `out` is then undefined.
  virtual bool AttendToExpanded(const AttentionTask& /*task*/, const Linear& /*keys*/, const Linear& /*values*/,
                                Stream& /*stream*/) {
    return false;
  }

  /// The attentions of several sequences, which do not depend on each other.
  virtual void AttentionOfMany(std::span<const AttentionTask> tasks, Stream& stream);

  /// Rows `rows` of x, which increase, one after the other: where they follow each other a part of x, else moved to
  /// its front. x: [n, features].
  virtual TensorView KeepRows(TensorView x, std::span<const int64_t> rows, Stream& stream);

  /// out = activation(gate) * up. gate_up: [n, 2 * features], gate first; out: [n, features].
  virtual void GatedActivation(Activation activation, TensorView gate_up, TensorView out, Stream& stream) = 0;
  /// out = activation(x). x, out: [n, features]; out may be x.
  virtual void Activate(Activation activation, TensorView x, TensorView out, Stream& stream) = 0;

  /// sum += the weighted sum of what its experts make of each row of x. What an expert makes is rounded to the
  /// compute dtype; the sum is made in f32, over a row's experts in their order, and rounded once. x, sum: [n,
  /// hidden]; scores: [n, choices], f32, and where they have a column more, its logistic function is the weight of
  /// the shared expert, else 1.
  virtual void AddMixture(TensorView /*x*/, TensorView /*scores*/, const Mixture& /*mixture*/,
                          const MixtureMemory& /*memory*/, TensorView /*sum*/, Stream& /*stream*/) {
    CHECK(false);
  }

  /// x = cap * tanh(x / cap). x: [n, features], f32; cap > 0.
  virtual void Softcap(TensorView x, float cap, Stream& stream) = 0;

  // ---- Several steps at once, for backends that are faster when they know what follows. A tensor that is "written
  // or not" must have room, and is undefined afterwards.

  /// AppendKv and PrepareQueries of the same rows.
  virtual void PrepareHeads(const HeadRows& heads, Stream& stream);
  /// PrepareHeads of rows of several sequences. The q, k and v of each of `pieces` follow those of the one before.
  virtual void PrepareHeadsOfMany(std::span<const HeadRows> pieces, Stream& stream);
  /// PrepareQueries of each row of q. q: [rows, q_heads, head_dim].
  virtual void PrepareQueriesOfMany(TensorView q, std::span<const QueryRow> rows, Stream& stream);
  /// normalized = norm(x); qkv = normalized W^T + b over all parts of `linear`; then PrepareHeads. x, normalized:
  /// [n, in], not the same; qkv: [n, out_features], where q, k and v of `heads` lie, of which k and v are written or
  /// not.
  virtual void ProjectHeads(TensorView x, const Norm& norm, TensorView normalized, const Linear& linear,
                            TensorView qkv, const HeadRows& heads, Stream& stream);
  /// sum += x W^T + b over all parts of `linear`. x: [n, in]; sum: [n, out_features], of the compute dtype; product:
  /// as large, written or not.
  virtual void MatmulAdd(TensorView x, const Linear& linear, TensorView product, TensorView sum, Stream& stream);
  /// out = activation(product), or where `product` is twice as wide as `out` activation(gate) * up of its two halves;
  /// product = x W^T + b over all parts of `linear`. x: [n, in]; product: [n, out_features], of the compute dtype,
  /// written or not; out: [n, features].
  virtual void MatmulActivate(TensorView x, const Linear& linear, Activation activation, TensorView product,
                              TensorView out, Stream& stream);
  /// MatmulActivate of normalized = norm(x). x, normalized: [n, in], not the same.
  virtual void NormalizeMatmulActivate(TensorView x, const Norm& norm, TensorView normalized, const Linear& linear,
                                       Activation activation, TensorView product, TensorView out, Stream& stream);

  // ---- Tokens that the host need not see

  /// Null where the host does the work itself, and so nothing could be enqueued ahead of it; the two operations below
  /// are for others.
  virtual std::unique_ptr<ChosenToken> NewChosenToken() { return nullptr; }
  /// token = the index of the largest logit, of equal ones the lowest. logits: [1, vocab], f32.
  virtual void ChooseLikeliest(TensorView /*logits*/, ChosenToken& /*token*/, Stream& /*stream*/) { CHECK(false); }
  /// The index of the largest logit of each row, of equal ones the lowest, -1 where a logit is not a number; for
  /// those who wait for `stream` before they look, and ask no more before. Empty where the host does the work itself.
  /// logits: [n, vocab], f32.
  virtual std::span<const int32_t> LikeliestOfMany(TensorView /*logits*/, Stream& /*stream*/) { return {}; }
  /// Embed of the token chosen last. out: [1, hidden].
  virtual void EmbedChosen(const ChosenToken& /*token*/, TensorView /*table*/, float /*scale*/, TensorView /*out*/,
                           Stream& /*stream*/) {
    CHECK(false);
  }
};

/// The fastest operations for the processor this runs on, using `threads` of the calling thread's processors. The
/// device must outlive them.
std::unique_ptr<Ops> MakeCpuOps(Device& device, int threads);
/// The oracle: plain loops in f32 (f64 sums), one thread.
std::unique_ptr<Ops> MakeScalarOps(Device& device);

/// Whether this processor multiplies bf16 matrices natively, so that bf16 compute is the faster choice.
bool CpuHasNativeBf16();

}  // namespace runahead
