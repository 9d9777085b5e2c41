// Matrix products through cuBLASLt: weights on a GPU, and for each shape the fastest of its algorithms.
#pragma once

#include <cublasLt.h>
#include <driver_types.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "ops/cuda/kernels.h"
#include "ops/ops.h"

namespace runahead::cuda {

/// Weights in GPU memory, in the order that both cuBLASLt and the one-row kernel read: [out_features, in_features].
class CudaLinear final : public Linear {
 public:
  struct Memory {
    Buffer weights;                   // [out_features, in_features], compute dtype
    Buffer wide_bias;                 // [out_features], f32; empty without biases
    Buffer narrow_bias;               // bias in the compute dtype
    std::vector<int64_t> first_rows;  // [parts + 1]: where each part begins
  };
  CudaLinear(Memory memory, int64_t in_features, DType compute)
      : memory_(std::move(memory)), in_features_(in_features), compute_(compute) {}

  [[nodiscard]] int64_t in_features() const override { return in_features_; }
  [[nodiscard]] int parts() const override { return static_cast<int>(memory_.first_rows.size()) - 1; }
  [[nodiscard]] int64_t out_features(int first, int count) const override {
    return FirstRow(first + count) - FirstRow(first);
  }
  [[nodiscard]] DType compute() const { return compute_; }
  /// The same weights in the memory of `device`, which reaches these; enqueued on `stream`.
  [[nodiscard]] std::unique_ptr<CudaLinear> CopyTo(Device& device, Stream& stream) const;

  /// The weights and biases of the parts from `first` on.
  [[nodiscard]] const void* Weights(int first) const {
    return memory_.weights.data() + static_cast<size_t>(FirstRow(first) * in_features_) * SizeOf(compute_);
  }
  /// Null without biases.
  [[nodiscard]] const void* Bias(int first, DType dtype) const {
    const Buffer& biases = dtype == DType::kF32 ? memory_.wide_bias : memory_.narrow_bias;
    return biases.data() == nullptr ? nullptr : biases.data() + static_cast<size_t>(FirstRow(first)) * SizeOf(dtype);
  }

 private:
  [[nodiscard]] int64_t FirstRow(int part) const { return memory_.first_rows[static_cast<size_t>(part)]; }

  Memory memory_;
  int64_t in_features_;
  DType compute_;
};

/// One product y = x W^T + b, or y += x W^T + b, as cuBLASLt sees it.
struct Product {
  int64_t rows = 0;  // rows of x and y
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t x_stride = 0;
  int64_t y_stride = 0;
  int32_t heads = 1;  // products side by side, each of its own columns of x and y
  DType compute = DType::kF32;
  DType result = DType::kF32;
  bool biased = false;
  bool adds = false;
  uint8_t x_alignment = 16;  // bytes that divide every row's address, at most 16
  uint8_t y_alignment = 16;
  uint8_t weight_alignment = 16;

  friend auto operator<=>(const Product&, const Product&) = default;
};

/// Multiplies on one GPU. Plans are made once for each product and kept. Used by one thread at a time.
class Multiplier {
 public:
  /// `deterministic`: one algorithm for all products of as many inputs, whatever their rows.
  Multiplier(Device& device, int ordinal, bool deterministic);
  ~Multiplier();
  Multiplier(const Multiplier&) = delete;
  Multiplier& operator=(const Multiplier&) = delete;

  /// Enqueues y = x W^T + b, or with `adds` y += x W^T + b, over parts [first, first + count) of `linear`.
  void Multiply(TensorView x, const CudaLinear& linear, int first, int count, bool adds, TensorView y,
                const LaunchOn& on);

  /// Enqueues Ops::MatmulByHead.
  void MultiplyByHead(TensorView x, const CudaLinear& linear, TensorView y, const LaunchOn& on);

  /// Times cuBLASLt's best guesses for products of `rows` rows by all of each of `alike`, weights of one shape that
  /// are taken in turn so that no cache holds them, on random numbers, and keeps the
  /// fastest for all products of about as many rows; of long products the one that is fastest when many follow each
  /// other, since a GPU lowers its clocks for what they draw. Waits for the GPU.
  void Tune(std::span<const CudaLinear* const> alike, int64_t rows, DType result, bool adds, const LaunchOn& on);

 private:
  struct Plan;
  /// What a plan multiplies.
  struct Operands {
    const void* x;
    const void* weights;
    const void* bias;
    void* y;
  };
  [[nodiscard]] std::unique_ptr<Plan> MakePlan(const Product& product);
  Plan& PlanOf(const Product& product);
  void Run(const Plan& plan, const Operands& operands, cudaStream_t stream);
  /// Milliseconds of each of `runs` runs after `before` others, with the operands taken in turn.
  std::vector<float> Time(const Plan& plan, std::span<const Operands> operands, int before, int runs,
                          cudaStream_t stream);
  /// Adds the most promising ones of `candidates` with the inputs split among more blocks, for few rows.
  void AddSplits(const Plan& plan, std::vector<cublasLtMatmulAlgo_t>& candidates) const;
  /// The algorithm of all products of a kind, whatever their rows and outputs.
  [[nodiscard]] cublasLtMatmulAlgo_t OneAlgorithm(const Product& product);

  Device& device_;
  int ordinal_;
  bool deterministic_;
  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  std::map<Product, std::unique_ptr<Plan>> plans_;
  std::map<Product, cublasLtMatmulAlgo_t> tuned_;
  std::map<Product, cublasLtMatmulAlgo_t> one_;  // where deterministic, by the product that they were chosen for
};

}  // namespace runahead::cuda
