// Operations that tell how long each took: a decorator for measurements.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace runahead {

/// One call of an operation.
struct OpTime {
  std::string op;    // "matmul 4096 -> 12288", "attention", ...
  double ms = 0;     // time on the device, ms
  double flops = 0;  // operations of matmuls and attention, visible pairs only
  double bytes = 0;  // bytes read and written, each tensor once
};

/// Passes everything to other operations, which must outlive it, and marks the stream around each step. Not
/// thread-safe.
class TimedOps final : public Ops {
 public:
  explicit TimedOps(Ops& inner) : inner_(inner) {}

  /// The calls since the last Take, in order. Waits for the stream.
  std::vector<OpTime> Take(Stream& stream);

  [[nodiscard]] Device& device() override { return inner_.device(); }
  Tensor Upload(TensorView host) override { return inner_.Upload(host); }
  using Ops::Prepare;
  std::unique_ptr<Linear> Prepare(const std::vector<LinearPart>& parts, DType compute, WeightFormat format) override {
    return inner_.Prepare(parts, compute, format);
  }
  [[nodiscard]] bool LeavesInPlace(const Shape& matrix, DType stored, DType compute) const override {
    return inner_.LeavesInPlace(matrix, stored, compute);
  }
  [[nodiscard]] DType WeightDType(DType compute) const override { return inner_.WeightDType(compute); }
  [[nodiscard]] int64_t PreferredRows() const override { return inner_.PreferredRows(); }

  void Embed(std::span<const int32_t> tokens, TensorView table, float scale, TensorView out, Stream& stream) override;
  void Normalize(TensorView x, const Norm& norm, TensorView out, Stream& stream) override;
  void Add(TensorView x, TensorView delta, Stream& stream) override;
  void Matmul(TensorView x, const Linear& linear, int first, int count, TensorView y, Stream& stream) override;
  void PrepareQueries(TensorView q, const HeadSteps& steps, int64_t position, Stream& stream) override;
  void AppendKv(TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows, Stream& stream) override;
  void Attention(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options, TensorView out,
                 Stream& stream) override;
  void GatedActivation(Activation activation, TensorView gate_up, TensorView out, Stream& stream) override;
  void Activate(Activation activation, TensorView x, TensorView out, Stream& stream) override;
  [[nodiscard]] Abilities abilities() const override { return inner_.abilities(); }
  void AddMixture(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
                  TensorView sum, Stream& stream) override;
  void Softcap(TensorView x, float cap, Stream& stream) override;
  bool AttendToExpanded(const AttentionTask& task, const Linear& keys, const Linear& values, Stream& stream) override;
  void AttentionOfMany(std::span<const AttentionTask> tasks, Stream& stream) override;
  void PrepareHeadsOfMany(std::span<const HeadRows> pieces, Stream& stream) override;
  void MatmulAdd(TensorView x, const Linear& linear, TensorView product, TensorView sum, Stream& stream) override;

 private:
  struct Call {
    OpTime time;
    std::unique_ptr<Mark> begin;
    std::unique_ptr<Mark> end;
  };
  template <typename Function>
  void Measure(OpTime time, Stream& stream, const Function& function) {
    Call call{std::move(time), stream.NewMark(), nullptr};
    function();
    call.end = stream.NewMark();
    calls_.push_back(std::move(call));
  }

  Ops& inner_;
  std::vector<Call> calls_;
};

}  // namespace runahead
