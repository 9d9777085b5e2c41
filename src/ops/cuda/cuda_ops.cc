#include "ops/cuda/cuda_ops.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <optional>
#include <vector>

#include "ops/checks.h"
#include "ops/cuda/cudnn_attention.h"
#include "ops/cuda/expanded_attention.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/matmul.h"
#include "ops/cuda/matrix_preparer.h"
#include "ops/cuda/mixture.h"
#include "ops/cuda/sequences.h"
#include "ops/cuda/staging.h"
#include "runahead/error.h"
#include "tensor/cuda_check.h"
#include "tensor/cuda_stream.h"

namespace runahead {
namespace {

using cuda::LaunchOn;

class CudaOps final : public Ops {
 public:
  CudaOps(Device& device, int ordinal, bool deterministic)
      : device_(device),
        ordinal_(ordinal),
        deterministic_(deterministic),
        properties_(PropertiesOf(ordinal)),
        uploader_(ordinal, overlap()),
        tokens_(ordinal),
        multiplier_(device, ordinal, deterministic),
        cudnn_(device, ordinal, deterministic),
        expanded_(device, multiplier_, cudnn_),
        sequences_(device, ordinal),
        mixer_(device) {
    const int blocks = 8 * properties_.multiProcessorCount;
    partial_ = device.Allocate(cuda::SplitScratch::PartialBytes(blocks));
    counters_ = device.Allocate(static_cast<size_t>(blocks) * sizeof(unsigned));
    const CurrentDevice current(ordinal);
    CheckCuda(cudaMemset(counters_.data(), 0, counters_.bytes()), ordinal, "cudaMemset");
    CheckCuda(cudaDeviceSynchronize(), ordinal, "cudaMemset");
    scratch_ = {.blocks = blocks,
                .partial = reinterpret_cast<float*>(partial_.data()),
                .counters = reinterpret_cast<unsigned*>(counters_.data()),
                .multiprocessors = properties_.multiProcessorCount};
  }

  [[nodiscard]] Device& device() override { return device_; }

  Tensor Upload(TensorView host) override {
    Tensor tensor;
    tensor.memory = device_.Allocate(host.bytes());
    tensor.view = tensor.memory.View(host.dtype(), host.shape());
    uploader_.Copy(host, tensor.view.data(), host.dtype());
    uploader_.Finish();
    return tensor;
  }

  using Ops::Prepare;
  std::unique_ptr<Linear> Prepare(const std::vector<LinearPart>& parts, DType compute, WeightFormat format) override {
    CheckFormat(format);
    CheckParts(parts);
    const int64_t in_features = parts.front().weights.front().row_elements();
    const bool fp8 = FormatFor(format, in_features) == WeightFormat::kFp8;
    if (fp8) multiplier_.ReserveCodes(in_features);
    cuda::CudaLinear::Memory memory = cuda::MatrixPreparer(device_, ordinal_, uploader_).Prepare(parts, compute, fp8);
    return std::make_unique<cuda::CudaLinear>(std::move(memory), in_features, compute);
  }

  std::unique_ptr<Linear> Copy(const Linear& from, Stream& stream) override {
    return static_cast<const cuda::CudaLinear&>(from).CopyTo(device_, stream);
  }

  [[nodiscard]] int64_t PreferredRows() const override {
    constexpr int64_t kRows = 8192;  // cuBLASLt's rates still rise from 2048 to here
    return kRows;
  }

  void Tune(std::span<const Linear* const> alike, int64_t rows, DType result, bool adds, Stream& stream) override {
    if (deterministic_) return;
    std::vector<const cuda::CudaLinear*> weights;
    for (const Linear* linear : alike) weights.push_back(static_cast<const cuda::CudaLinear*>(linear));
    const CurrentDevice current(ordinal_);
    multiplier_.Tune(weights, rows, result, adds, On(stream));
  }

  void Embed(std::span<const int32_t> tokens, TensorView table, float scale, TensorView out,
             Stream& stream) override {
    CheckEmbed(tokens, table, out);
    const LaunchOn on = Enter(stream);
    if (tokens.size() <= static_cast<size_t>(cuda::InlineTokens::kMost)) {
      cuda::InlineTokens ids;
      std::memcpy(ids.ids, tokens.data(), tokens.size_bytes());
      return cuda::Embed(on, ids, table, scale, out);
    }
    for (size_t first = 0; first < tokens.size(); first += cuda::TokenBuffer::kMost) {
      const size_t count = std::min(cuda::TokenBuffer::kMost, tokens.size() - first);
      const int32_t* const sent = tokens_.Send(tokens.subspan(first, count), on.stream);
      const auto begin = static_cast<int64_t>(first);
      cuda::Embed(on, sent, table, scale, out.Rows(begin, begin + static_cast<int64_t>(count)));
    }
  }

  void Normalize(TensorView x, const Norm& norm, TensorView out, Stream& stream) override {
    CheckNormalize(x, norm, out);
    cuda::Normalize(Enter(stream), x, norm, out);
  }

  void Add(TensorView x, TensorView delta, Stream& stream) override {
    CheckAdd(x, delta);
    cuda::Add(Enter(stream), x, delta);
  }

  void Matmul(TensorView x, const Linear& linear, int first, int count, TensorView y, Stream& stream) override {
    const auto& weights = static_cast<const cuda::CudaLinear&>(linear);
    CheckMatmul(x, linear, weights.compute(), first, count, y);
    const LaunchOn on = Enter(stream);
    if (FewRows(x) && cuda::MultiplyFewRows(on, RowProductOf(x, linear, first), y)) return;
    if (!OneRow(x, linear)) return multiplier_.Multiply(x, weights, first, count, false, y, on);
    cuda::MultiplyRow(on, RowProductOf(x, linear, first), y);
  }

  void MatmulByHead(TensorView x, const Linear& linear, TensorView y, Stream& stream) override {
    const auto& weights = static_cast<const cuda::CudaLinear&>(linear);
    CHECK_EQ(x.row_elements(), linear.parts() * linear.in_features());
    CHECK_EQ(y.row_elements(), linear.out_features());
    CHECK_EQ(x.rows(), y.rows());
    CHECK(x.dtype() == weights.compute() && y.dtype() == weights.compute());
    multiplier_.MultiplyByHead(x, weights, y, Enter(stream));
  }

  void MatmulAdd(TensorView x, const Linear& linear, TensorView /*product*/, TensorView sum,
                 Stream& stream) override {
    const auto& weights = static_cast<const cuda::CudaLinear&>(linear);
    CheckMatmul(x, linear, weights.compute(), 0, linear.parts(), sum);
    const LaunchOn on = Enter(stream);
    if (FewRows(x) && cuda::MultiplyFewRowsAndAdd(on, RowProductOf(x, linear, 0), sum)) return;
    if (!OneRow(x, linear)) return multiplier_.Multiply(x, weights, 0, linear.parts(), true, sum, on);
    cuda::MultiplyRowAndAdd(on, RowProductOf(x, linear, 0), sum);
  }

  void MatmulActivate(TensorView x, const Linear& linear, Activation activation, TensorView product, TensorView out,
                      Stream& stream) override {
    if (FewRows(x)) {
      const bool gated = CheckActivated(x, linear, product, out);
      if (cuda::MultiplyFewRowsAndActivate(Enter(stream), RowProductOf(x, linear, 0), activation, gated, out)) return;
    }
    if (!OneRow(x, linear)) {
      const bool gated = CheckActivated(x, linear, product, out);
      if (!gated || !IsFp8(linear)) return Ops::MatmulActivate(x, linear, activation, product, out, stream);
      Ops::Matmul(x, linear, product, stream);
      return ActivateIntoCodes(activation, product, out, stream);
    }
    ActivateRow(RowProductOf(x, linear, 0), linear, activation, product, out, stream);
  }

  void NormalizeMatmulActivate(TensorView x, const Norm& norm, TensorView normalized, const Linear& linear,
                               Activation activation, TensorView product, TensorView out, Stream& stream) override {
    if (!OneRow(x, linear)) {
      NormalizeFor(linear, x, norm, normalized, stream);
      return MatmulActivate(normalized, linear, activation, product, out, stream);
    }
    ActivateRow(NormalizedProduct(x, norm, normalized, linear), linear, activation, product, out, stream);
  }

  void ProjectHeads(TensorView x, const Norm& norm, TensorView normalized, const Linear& linear, TensorView qkv,
                    const HeadRows& heads, Stream& stream) override {
    if (!OneRow(x, linear)) {
      NormalizeFor(linear, x, norm, normalized, stream);
      Ops::Matmul(normalized, linear, qkv, stream);
      return PrepareHeads(heads, stream);
    }
    const cuda::RowProduct product = NormalizedProduct(x, norm, normalized, linear);
    CheckMatmul(x, linear, x.dtype(), 0, linear.parts(), qkv);
    CheckHeads(heads.q, heads.query_steps, heads.rows.begin);
    CheckAppendKv(heads.k, heads.v, heads.key_steps, heads.rows);
    const LaunchOn on = Enter(stream);
    if (cuda::MultiplyRowIntoHeads(on, product, heads)) return;
    cuda::MultiplyRow(on, product, qkv);
    cuda::PrepareHeads(on, heads);
  }

  void PrepareQueries(TensorView q, const HeadSteps& steps, int64_t position, Stream& stream) override {
    CheckHeads(q, steps, position);
    cuda::PrepareQueries(Enter(stream), q, steps, position);
  }

  void AppendKv(TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows, Stream& stream) override {
    CheckAppendKv(k, v, steps, rows);
    const LaunchOn on = Enter(stream);
    NoteAppend(k.rows());
    cuda::AppendKv(on, k, v, steps, rows);
  }

  void PrepareHeads(const HeadRows& heads, Stream& stream) override {
    if (heads.q.data() != nullptr) CheckHeads(heads.q, heads.query_steps, heads.rows.begin);
    CheckAppendKv(heads.k, heads.v, heads.key_steps, heads.rows);
    const LaunchOn on = Enter(stream);
    NoteAppend(heads.k.rows());
    cuda::PrepareHeads(on, heads);
  }

  void PrepareHeadsOfMany(std::span<const HeadRows> pieces, Stream& stream) override {
    if (pieces.size() == 1) return PrepareHeads(pieces.front(), stream);
    const LaunchOn on = Enter(stream);
    for (const HeadRows& piece : pieces) NoteAppend(piece.k.rows());
    if (!sequences_.PrepareHeads(pieces, on)) Ops::PrepareHeadsOfMany(pieces, stream);
  }

  void PrepareQueriesOfMany(TensorView q, std::span<const QueryRow> rows, Stream& stream) override {
    CHECK_EQ(q.rows(), std::ssize(rows));
    if (!sequences_.PrepareQueries(q, rows, Enter(stream))) Ops::PrepareQueriesOfMany(q, rows, stream);
  }

  TensorView KeepRows(TensorView x, std::span<const int64_t> rows, Stream& stream) override {
    const auto count = std::ssize(rows);
    if (rows.empty() || rows.back() - rows.front() + 1 == count) return Ops::KeepRows(x, rows, stream);
    sequences_.KeepRows(x, rows, Enter(stream));
    return x.Rows(0, count);
  }

  /// Where deterministic, all queries meet the latent vectors, whatever is asked with them.
  bool AttendToExpanded(const AttentionTask& task, const Linear& keys, const Linear& values,
                        Stream& stream) override {
    if (!expands_latents() || task.q.dtype() == DType::kF32 || task.q.rows() <= kFewQueries) return false;
    const LaunchOn on = Enter(stream);
    AttentionTask straight = task;
    if (!task.keys.pages.straight()) straight.keys = Gathered(on, task.position, task.keys, task.options);
    return expanded_.Attend(straight, static_cast<const cuda::CudaLinear&>(keys),
                            static_cast<const cuda::CudaLinear&>(values), on);
  }

  /// Single queries in one launch, all else one after the other.
  void AttentionOfMany(std::span<const AttentionTask> tasks, Stream& stream) override {
    std::vector<const AttentionTask*> single;
    for (const AttentionTask& task : tasks) {
      if (!deterministic_ && task.q.rows() == 1 && task.options.rotated.data() == nullptr) {
        CheckAttention(task.q, task.position, task.keys, task.options, task.out);
        single.push_back(&task);
      } else {
        Attention(task.q, task.position, task.keys, task.options, task.out, stream);
      }
    }
    const bool together = single.size() > 1 || (!single.empty() && !single.front()->keys.pages.straight());
    if (together && sequences_.Attend(single, Unsettled(), Enter(stream))) return;
    for (const AttentionTask* task : single) {
      Attention(task->q, task->position, task->keys, task->options, task->out, stream);
    }
  }

  void Attention(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options, TensorView out,
                 Stream& stream) override {
    CheckAttention(q, position, keys, options, out);
    const LaunchOn on = Enter(stream);
    const KvRows rows = keys.pages.straight() ? keys : Gathered(on, position, keys, options);
    if (options.causal == CausalWork::kDense) AttendToMasked(on, q, position, rows, options, out);
    Attend(on, q, position, rows, options, out, keys.pages.straight() ? SettledRows(position) : 0);
  }

  void GatedActivation(Activation activation, TensorView gate_up, TensorView out, Stream& stream) override {
    CheckGatedActivation(gate_up, out);
    cuda::GatedActivation(Enter(stream), activation, gate_up, out);
  }

  void Activate(Activation activation, TensorView x, TensorView out, Stream& stream) override {
    CheckActivate(x, out);
    cuda::Activate(Enter(stream), activation, x, out);
  }

  [[nodiscard]] Abilities abilities() const override {
    return {.most_experts = cuda::kMostExperts,
            .clamped_gates = true,
            .widest_latent = cuda::kWidestLatent,
            .sinks = true,
            .expands_latents = expands_latents()};
  }

  void AddMixture(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
                  TensorView sum, Stream& stream) override {
    CheckMixture(x, scores, mixture, memory, sum);
    if (mixture.shared) {
      const Expert& shared = mixture.experts.back();
      const int64_t ffn = shared.down->in_features();
      const int64_t slots = x.rows() * mixture.chosen;
      const TensorView activated = memory.activated.Rows(0, x.rows()).Columns(0, ffn);
      const TensorView product = memory.product.Rows(0, x.rows()).Columns(0, 2 * ffn);
      MatmulActivate(x, *shared.gate_up, mixture.activation, product, activated, stream);
      Ops::Matmul(activated, *shared.down, memory.results.Rows(slots, slots + x.rows()), stream);
    }
    mixer_.Add(Enter(stream), x, scores, mixture, memory, sum);
  }

  std::unique_ptr<ChosenToken> NewChosenToken() override { return std::make_unique<cuda::CudaChosenToken>(ordinal_); }

  void ChooseLikeliest(TensorView logits, ChosenToken& token, Stream& stream) override {
    CHECK(logits.dtype() == DType::kF32);
    CHECK_EQ(logits.rows(), 1);
    static_cast<cuda::CudaChosenToken&>(token).Choose(Enter(stream), logits);
  }

  std::span<const int32_t> LikeliestOfMany(TensorView logits, Stream& stream) override {
    CHECK(logits.dtype() == DType::kF32);
    if (!likeliest_ || likeliest_->most() < logits.rows()) likeliest_.emplace(ordinal_, 2 * logits.rows());
    return likeliest_->Choose(Enter(stream), logits);
  }

  void EmbedChosen(const ChosenToken& token, TensorView table, float scale, TensorView out, Stream& stream) override {
    CHECK_EQ(out.rows(), 1);
    CHECK_EQ(out.row_elements(), table.row_elements());
    cuda::Embed(Enter(stream), static_cast<const cuda::CudaChosenToken&>(token).device(), table, scale, out);
  }

  void Softcap(TensorView x, float cap, Stream& stream) override {
    CheckSoftcap(x, cap);
    cuda::Softcap(Enter(stream), x, cap);
  }

 private:
  static constexpr int64_t kFewQueries =
      16;  // most queries that the split kernel serves sooner than tensor-core tiles

  static cudaDeviceProp PropertiesOf(int ordinal) {
    cudaDeviceProp properties{};
    CheckCuda(cudaGetDeviceProperties(&properties, ordinal), ordinal, "cudaGetDeviceProperties");
    return properties;
  }

  [[nodiscard]] bool overlap() const {
    constexpr int kHopper = 9;  // the first with programmatic dependent launch
    return properties_.major >= kHopper;
  }

  /// cuDNN has heads wider than their values, and than 128 features, from Hopper on.
  [[nodiscard]] bool expands_latents() const { return !deterministic_ && overlap(); }

  [[nodiscard]] LaunchOn On(Stream& stream) const {
    return {static_cast<CudaStream&>(stream).handle(), overlap(), properties_.multiProcessorCount};
  }

  static cuda::RowProduct RowProductOf(TensorView x, const Linear& linear, int first) {
    const auto& weights = static_cast<const cuda::CudaLinear&>(linear);
    return {x,
            weights.Weights(first),
            weights.Scales(first),
            static_cast<const float*>(weights.Bias(first, DType::kF32)),
            nullptr,
            {}};
  }

  static cuda::RowProduct NormalizedProduct(TensorView x, const Norm& norm, TensorView normalized,
                                            const Linear& linear) {
    CheckNormalize(x, norm, normalized);
    CHECK(normalized.data() != x.data());
    cuda::RowProduct product = RowProductOf(x, linear, 0);
    product.norm = &norm;
    product.normalized = normalized;
    return product;
  }

  /// Whether half of the product gates the other half.
  static bool CheckActivated(TensorView x, const Linear& linear, TensorView product, TensorView out) {
    CheckMatmul(x, linear, static_cast<const cuda::CudaLinear&>(linear).compute(), 0, linear.parts(), product);
    const bool gated = product.row_elements() != out.row_elements();
    gated ? CheckGatedActivation(product, out) : CheckActivate(product, out);
    return gated;
  }

  void ActivateRow(const cuda::RowProduct& product, const Linear& linear, Activation activation, TensorView room,
                   TensorView out, Stream& stream) {
    const bool gated = CheckActivated(product.x, linear, room, out);
    cuda::MultiplyRowAndActivate(Enter(stream), product, activation, gated, out);
  }

  void Attend(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options,
              TensorView out, int64_t settled = 0) {
    if (options.rotated.data() != nullptr) {
      CHECK_EQ(keys.k.shape()[1], 1);
      CHECK_EQ(options.softcap, 0.0f);
      CHECK(options.key_bias.data() == nullptr && options.sinks.data() == nullptr);
      const bool many = q.rows() > kFewQueries || deterministic_;
      if (many && cuda::AttendManyToLatents(on, q, position, keys, options, out)) return;
      return cuda::AttendToLatents(on, q, position, keys, options, out, scratch_, deterministic_);
    }
    if (deterministic_) {
      // Whatever the queries are asked with: a window's first key would move the tiles of others.
      if (options.window == 0 && cudnn_.Attend(q, position, keys, options, out, on)) return;
      return cuda::SplitAttention(on, q, position, keys, options, out, scratch_, settled, true);
    }
    if (q.rows() > kFewQueries && cudnn_.Attend(q, position, keys, options, out, on)) return;
    if (cuda::DecodeAttention(on, q, position, keys, options, out, scratch_)) return;
    cuda::SplitAttention(on, q, position, keys, options, out, scratch_, settled, false);
  }

  /// The rows of `keys` that queries from `position` on see, copied from their pages so that they follow each other.
  /// Valid for what is enqueued next.
  KvRows Gathered(const LaunchOn& on, int64_t position, const KvRows& keys, const AttentionOptions& options) {
    const auto bytes_of = [&](const TensorView& view, int64_t rows) {
      return static_cast<size_t>(rows * view.row_elements()) * SizeOf(view.dtype());
    };
    constexpr size_t kAlignment = 256;
    const size_t key_bytes = (bytes_of(keys.k, keys.rows) + kAlignment - 1) / kAlignment * kAlignment;
    const size_t all_bytes = key_bytes + bytes_of(keys.v, keys.rows);
    if (gathered_.bytes() < all_bytes) {
      gathered_ = Buffer();
      gathered_ = device_.Allocate(std::max(all_bytes, size_t{2} << 20) * 5 / 4);
    }
    std::byte* const values = gathered_.data() + key_bytes;
    const auto copy = [&](const TensorView& from, std::byte* to, int64_t begin, int64_t end) {
      const size_t row_bytes = bytes_of(from, 1);
      CheckCuda(cudaMemcpyAsync(
                    to + static_cast<size_t>(begin) * row_bytes,
                    static_cast<const std::byte*>(from.data()) + static_cast<size_t>(keys.RowOf(begin)) * row_bytes,
                    static_cast<size_t>(end - begin) * row_bytes, cudaMemcpyDeviceToDevice, on.stream),
                ordinal_, "cudaMemcpyAsync");
    };
    const bool dense = options.causal == CausalWork::kDense;
    const int64_t first = options.window > 0 && !dense ? std::max<int64_t>(0, position - options.window + 1) : 0;
    for (int64_t begin = first; begin < keys.rows;) {
      const int64_t end = keys.pages.StraightEnd(begin, keys.rows);
      copy(keys.k, gathered_.data(), begin, end);
      copy(keys.v, values, begin, end);
      begin = end;
    }
    const auto view = [&](std::byte* at, const TensorView& like) {
      return TensorView(at, like.dtype(), {keys.rows, like.shape()[1], like.shape()[2]});
    };
    return {view(gathered_.data(), keys.k), view(values, keys.v), keys.rows, PageTable(keys.rows)};
  }

  /// Kernels start while those before them run, but a GPU has no more than kMostKernels at a time. So what was
  /// appended so many launches ago is there before the next kernel's wait: rows that came one by one, and many at
  /// once when so many launches followed.
  [[nodiscard]] int64_t SettledRows(int64_t position) const { return std::max<int64_t>(position - Unsettled(), 0); }
  /// Rows before a query that may not be there.
  [[nodiscard]] int64_t Unsettled() const {
    constexpr int64_t kMostKernels = 128;
    return launches_ - many_appended_ > kMostKernels ? kMostKernels : INT32_MAX;
  }
  /// What is enqueued next appends `rows` rows.
  void NoteAppend(int64_t rows) {
    if (rows > 1) many_appended_ = launches_;
  }

  /// CausalWork::kDense: computes into `out`, which is overwritten by what counts, as many pairs as the mask takes
  /// away. So a full map costs what all its pairs cost at the rate of the fastest kernel there is, and not the
  /// traffic of a mask as large as the map on top. Turned around, the masked triangle is a causal one: of keys
  /// [position, rows) the last query sees all, the one before it one less, ...
  void AttendToMasked(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                      AttentionOptions options, TensorView out) {
    const int64_t n = q.rows();
    const int64_t end = position + n;
    const int64_t window = options.window;
    const auto rows_of = [&](int64_t first, int64_t last) {
      return KvRows(keys.k.Rows(first, last), keys.v.Rows(first, last), last - first, PageTable(last - first));
    };
    options.window = 0;
    Attend(on, q, keys.rows - position - n, rows_of(position, keys.rows), options, out);
    if (window == 0 || window >= end) return;
    const int64_t first = std::max(position, window);  // the first query with positions before its window
    if (options.rotated.data() != nullptr) options.rotated = options.rotated.Rows(first - position, n);
    Attend(on, q.Rows(first - position, n), first - window, rows_of(0, end - window), options,
           out.Rows(first - position, n));
  }

  /// Whether x goes through the kernels of one row, whose sums have an order of their own.
  [[nodiscard]] bool OneRow(const TensorView& x, const Linear& linear) const {
    const bool wide_fp8 = x.dtype() == DType::kF32 && IsFp8(linear);
    return x.rows() == 1 && !deterministic_ && !wide_fp8;
  }

  [[nodiscard]] bool FewRows(const TensorView& x) const {
    return x.rows() > 1 && x.rows() <= cuda::kMostFewRows && !deterministic_;
  }

  [[nodiscard]] static bool IsFp8(const Linear& linear) {
    return static_cast<const cuda::CudaLinear&>(linear).is_fp8();
  }

  /// Normalize, which leaves the codes that the next product with `linear` needs.
  void NormalizeFor(const Linear& linear, TensorView x, const Norm& norm, TensorView normalized, Stream& stream) {
    const bool coded = IsFp8(linear) && !FewRows(x);
    if (!coded) return Normalize(x, norm, normalized, stream);
    CheckNormalize(x, norm, normalized);
    const LaunchOn on = Enter(stream);
    const auto place = multiplier_.PlaceForCodes(normalized);
    if (!place || !cuda::NormalizeAndQuantise(on, x, norm, normalized, place->codes, place->scales)) {
      multiplier_.ForgetCodes();
      return cuda::Normalize(on, x, norm, normalized);
    }
    coded_at_ = launches_;
  }

  /// GatedActivation, which leaves the codes that a product with weights in fp8 needs next.
  void ActivateIntoCodes(Activation activation, TensorView gate_up, TensorView out, Stream& stream) {
    const LaunchOn on = Enter(stream);
    const auto place = multiplier_.PlaceForCodes(out);
    if (!place || !cuda::ActivateAndQuantise(on, activation, gate_up, out, place->codes, place->scales)) {
      multiplier_.ForgetCodes();
      return cuda::GatedActivation(on, activation, gate_up, out);
    }
    coded_at_ = launches_;
  }

  /// Makes the GPU the thread's current one for good, since a rank's thread has one GPU; then as On.
  LaunchOn Enter(Stream& stream) {
    ++launches_;
    if (launches_ != coded_at_ + 1) multiplier_.ForgetCodes();  // they are for what follows at once
    CheckCuda(cudaSetDevice(ordinal_), ordinal_, "cudaSetDevice");
    return On(stream);
  }

  /// Throws ConfigError for formats that this GPU does not multiply.
  void CheckFormat(WeightFormat format) const {
    constexpr int kFirst = 89;  // compute capability of the first GPUs that multiply e4m3, times ten
    if (format == WeightFormat::kStored) return;
    if (format != WeightFormat::kFp8) {
      throw ConfigError(
          fmt::format("--weights {}: CPU ranks have it; expected stored or fp8 on {}", Name(format), device_.name()));
    }
    if (10 * properties_.major + properties_.minor < kFirst) {
      throw ConfigError(fmt::format("--weights fp8: {} has compute capability {}.{}; expected 8.9 or newer",
                                    device_.name(), properties_.major, properties_.minor));
    }
  }

  Device& device_;
  int ordinal_;
  bool deterministic_;
  cudaDeviceProp properties_;
  cuda::Uploader uploader_;
  cuda::TokenBuffer tokens_;
  cuda::Multiplier multiplier_;
  cuda::CudnnAttention cudnn_;
  cuda::ExpandedAttention expanded_;
  cuda::Sequences sequences_;
  cuda::Mixer mixer_;
  std::optional<cuda::LikeliestTokens> likeliest_;
  Buffer partial_;
  Buffer counters_;
  cuda::SplitScratch scratch_;
  Buffer gathered_;            // keys, then values, of a sequence whose pages do not follow each other
  int64_t launches_ = 0;       // calls that enqueued kernels
  int64_t coded_at_ = -1;      // value of launches_ when a kernel left codes of its rows for the next product
  int64_t many_appended_ = 0;  // value of launches_ at the last append of several rows
};

}  // namespace

std::unique_ptr<Ops> MakeCudaOps(Device& device, int ordinal, bool deterministic) {
  return std::make_unique<CudaOps>(device, ordinal, deterministic);
}

}  // namespace runahead
