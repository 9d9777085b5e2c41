// The operations of a CPU rank: each family has its own file; here they meet the interface.
#include <memory>

#include "ops/checks.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/matmul/linear.h"
#include "ops/cpu/matmul/multiplier.h"
#include "ops/cpu/mixture.h"
#include "ops/cpu/processor.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/team.h"
#include "ops/ops.h"

namespace runahead {
namespace {

class CpuOps final : public Ops {
 public:
  CpuOps(Device& device, int threads)
      : device_(device), team_(threads), multiplier_(team_), mixer_(team_, multiplier_) {}

  [[nodiscard]] Device& device() override { return device_; }

  Tensor Upload(TensorView host) override { return {Buffer(), host}; }

  using Ops::Prepare;
  std::unique_ptr<Linear> Prepare(const std::vector<LinearPart>& parts, DType compute, WeightFormat format) override {
    return cpu::PrepareLinear(device_, parts, compute, format);
  }

  [[nodiscard]] bool LeavesInPlace(const Shape& matrix, DType stored, DType compute) const override {
    return cpu::StaysInPlace(matrix, stored, compute);
  }

  [[nodiscard]] DType WeightDType(DType compute) const override { return cpu::KernelFor(compute).arithmetic; }

  void Embed(std::span<const int32_t> tokens, TensorView table, float scale, TensorView out,
             Stream& /*stream*/) override {
    CheckEmbed(tokens, table, out);
    cpu::Embed(team_, tokens, table, scale, out);
  }

  void Normalize(TensorView x, const Norm& norm, TensorView out, Stream& /*stream*/) override {
    CheckNormalize(x, norm, out);
    cpu::Normalize(team_, x, norm, out);
  }

  void Matmul(TensorView x, const Linear& linear, int first, int count, TensorView y, Stream& /*stream*/) override {
    multiplier_.Multiply(x, linear, first, count, y);
  }

  void MatmulAdd(TensorView x, const Linear& linear, TensorView /*product*/, TensorView sum,
                 Stream& /*stream*/) override {
    multiplier_.MultiplyAdd(x, linear, sum);
  }

  void MatmulActivate(TensorView x, const Linear& linear, Activation activation, TensorView product, TensorView out,
                      Stream& /*stream*/) override {
    multiplier_.MultiplyActivate(x, linear, activation, product, out);
  }

  void Add(TensorView x, TensorView delta, Stream& /*stream*/) override {
    CheckAdd(x, delta);
    cpu::Add(team_, x, delta);
  }

  void PrepareQueries(TensorView q, const HeadSteps& steps, int64_t position, Stream& /*stream*/) override {
    CheckHeads(q, steps, position);
    if (steps.norm != nullptr) cpu::NormalizeHeads(team_, q, *steps.norm, q);
    if (steps.rope != nullptr) cpu::Rotate(team_, q, *steps.rope, position, q);
  }

  void AppendKv(TensorView k, TensorView v, const HeadSteps& steps, const KvSpan& rows, Stream& /*stream*/) override {
    CheckAppendKv(k, v, steps, rows);
    TensorView source = k;
    if (steps.norm != nullptr) {
      cpu::NormalizeHeads(team_, source, *steps.norm, rows.k);
      source = rows.k;
    }
    if (steps.rope != nullptr) {
      cpu::Rotate(team_, source, *steps.rope, rows.begin, rows.k);
    } else if (steps.norm == nullptr) {
      cpu::ConvertRows(team_, k, rows.k);
    }
    cpu::ConvertRows(team_, v, rows.v);
  }

  void Attention(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options, TensorView out,
                 Stream& /*stream*/) override {
    CheckAttention(q, position, keys, options, out);
    cpu::Attend(team_, attention_scratch_, q, position, keys, options, out);
  }

  /// Single queries are too little work to share: each is one thread's, side by side.
  void AttentionOfMany(std::span<const AttentionTask> tasks, Stream& stream) override {
    std::vector<const AttentionTask*> single;
    for (const AttentionTask& task : tasks) {
      if (task.q.rows() == 1 && team_.threads() > 1 && tasks.size() > 1) {
        CheckAttention(task.q, task.position, task.keys, task.options, task.out);
        single.push_back(&task);
      } else {
        Attention(task.q, task.position, task.keys, task.options, task.out, stream);
      }
    }
    const cpu::Team one(1);
    own_scratch_.resize(static_cast<size_t>(team_.threads()));
    team_.Run(std::ssize(single), [&](int64_t index, int worker) {
      const AttentionTask& task = *single[static_cast<size_t>(index)];
      cpu::Attend(one, own_scratch_[static_cast<size_t>(worker)], task.q, task.position, task.keys, task.options,
                  task.out);
    });
  }

  void GatedActivation(Activation activation, TensorView gate_up, TensorView out, Stream& /*stream*/) override {
    CheckGatedActivation(gate_up, out);
    cpu::GatedActivation(team_, activation, gate_up, out);
  }

  void Activate(Activation activation, TensorView x, TensorView out, Stream& /*stream*/) override {
    CheckActivate(x, out);
    cpu::Activate(team_, activation, x, out);
  }

  [[nodiscard]] Abilities abilities() const override { return kCpuAbilities; }
  void AddMixture(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
                  TensorView sum, Stream& /*stream*/) override {
    CheckMixture(x, scores, mixture, memory, sum);
    mixer_.Add(x, scores, mixture, memory, sum);
  }

  void Softcap(TensorView x, float cap, Stream& /*stream*/) override {
    CheckSoftcap(x, cap);
    cpu::Softcap(team_, x, cap);
  }

 private:
  Device& device_;
  cpu::Team team_;
  cpu::Multiplier multiplier_;
  cpu::Mixer mixer_;
  cpu::Scratch attention_scratch_;
  std::vector<cpu::Scratch> own_scratch_;  // [threads], for attentions side by side
};

}  // namespace

std::unique_ptr<Ops> MakeCpuOps(Device& device, int threads) { return std::make_unique<CpuOps>(device, threads); }

bool CpuHasNativeBf16() { return cpu::HasBf16Vectors(); }

}  // namespace runahead
