// Matrix products through cuBLASLt: weights on a GPU, and for each shape the fastest of its algorithms.
#pragma once

#include <cublasLt.h>
#include <driver_types.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "ops/cuda/kernels.h"
#include "ops/ops.h"

namespace runahead::cuda {

/// Weights in GPU memory, in the order that both cuBLASLt and the one-row kernel read: [out_features, in_features].
/// In the compute dtype, or in e4m3 with a scale for each output feature.
class CudaLinear final : public Linear {
 public:
  struct Memory {
    Buffer weights;                   // [out_features, in_features]; e4m3: room behind them for kFp8Multiple rows
    Buffer scales;                    // [out_features], f32, of e4m3; empty otherwise
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
  /// Whether the weights are e4m3.
  [[nodiscard]] bool is_fp8() const { return memory_.scales.data() != nullptr; }
  [[nodiscard]] size_t weight_bytes() const { return is_fp8() ? 1 : SizeOf(compute_); }  // bytes of a weight
  /// The same weights in the memory of `device`, which reaches these; enqueued on `stream`.
  [[nodiscard]] std::unique_ptr<CudaLinear> CopyTo(Device& device, Stream& stream) const;

  /// The weights and biases of the parts from `first` on.
  [[nodiscard]] const void* Weights(int first) const {
    return memory_.weights.data() + static_cast<size_t>(FirstRow(first) * in_features_) * weight_bytes();
  }
  /// Null where the weights are not e4m3.
  [[nodiscard]] const float* Scales(int first) const {
    return is_fp8() ? reinterpret_cast<const float*>(memory_.scales.data()) + FirstRow(first) : nullptr;
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

/// What x and the weights of a product are: numbers of the compute dtype, e4m3, or e4m3 times a scale for each row.
enum class Operand : uint8_t { kCompute, kE4M3, kScaledE4M3 };

/// One product y = x W^T + b, or y += x W^T + b, as cuBLASLt sees it.
struct Product {
  int64_t rows = 0;  // rows of x and y
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t x_stride = 0;
  int64_t y_stride = 0;
  int32_t heads = 1;      // products side by side, each of its own columns of x and y
  bool shared_x = false;  // of the same columns of x
  bool turned = false;    // y = x W, where W is [in_features, out_features]
  int64_t y_step = 0;     // elements from a head's columns of y to the next one's; 0: out_features
  Operand operand = Operand::kCompute;
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

  /// Enqueues y = x W^T + b, or with `adds` y += x W^T + b, over parts [first, first + count) of `linear`. Where that
  /// is e4m3, x becomes it too, with a scale for each row.
  void Multiply(TensorView x, const CudaLinear& linear, int first, int count, bool adds, TensorView y,
                const LaunchOn& on);

  /// Takes the memory that products of e4m3 with so many inputs need, before others have taken it all.
  void ReserveCodes(int64_t in_features);

  /// Rows as e4m3.
  struct Fp8Rows {
    std::byte* codes = nullptr;  // [rows, in_features]
    float* scales = nullptr;     // [rows]
  };
  /// Where a kernel may leave e4m3 of x, which the next Multiply of e4m3 by it takes, up to ForgetCodes; nothing
  /// where those are not for all rows at once. Valid for what is enqueued next.
  [[nodiscard]] std::optional<Fp8Rows> PlaceForCodes(TensorView x);
  /// What was left there is that of other rows, or will be.
  void ForgetCodes() { coded_ = {}; }

  /// Enqueues Ops::MatmulByHead.
  void MultiplyByHead(TensorView x, const CudaLinear& linear, TensorView y, const LaunchOn& on);

  /// Enqueues y_h = x W_h^T, or where `turned` y_h = x W_h, for the parts from `first` on, one for each head of y. x:
  /// [n, features]; y: [n, heads, at least as many features as are made], of which the first are written.
  void MultiplyIntoHeads(TensorView x, const CudaLinear& linear, int first, bool turned, TensorView y,
                         const LaunchOn& on);

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
    const float* x_scales = nullptr;  // of Operand::kScaledE4M3
    const float* weight_scales = nullptr;
  };
  /// Null where cuBLASLt has no algorithm.
  [[nodiscard]] std::unique_ptr<Plan> MakePlan(const Product& product);
  Plan* FindPlan(const Product& product);
  Plan& PlanOf(const Product& product);
  void Run(const Plan& plan, const Operands& operands, cudaStream_t stream);
  [[nodiscard]] cublasStatus_t TryRun(const Plan& plan, const Operands& operands, cudaStream_t stream);

  void MultiplyFp8(TensorView x, const CudaLinear& linear, int first, int count, bool adds, TensorView y,
                   const LaunchOn& on);
  /// Makes e4m3 of x where it is not there already, in memory that the next call reuses.
  Fp8Rows QuantiseRows(TensorView x, const LaunchOn& on);
  /// Makes room for the e4m3 of so many rows.
  Fp8Rows RoomForCodes(int64_t rows, int64_t in_features);
  /// The product of e4m3 where cuBLASLt may apply the scales itself.
  [[nodiscard]] static std::optional<Product> ScaledProduct(const CudaLinear& linear, int first, int count, bool adds,
                                                            TensorView y);
  /// Returns false, having done nothing, where cuBLASLt refuses.
  [[nodiscard]] bool MultiplyScaled(const Product& product, const Operands& operands, cudaStream_t stream);
  /// The same by sums of codes in f32, and a kernel for the rest.
  void MultiplySums(const Fp8Rows& x, const CudaLinear& linear, int first, int count, bool adds, TensorView y,
                    const LaunchOn& on);
  /// Milliseconds of each of `runs` runs after `before` others, with the operands taken in turn.
  std::vector<float> Time(const Plan& plan, std::span<const Operands> operands, int before, int runs,
                          cudaStream_t stream);
  /// Adds the most promising ones of `candidates` with the inputs split among more blocks, for few rows.
  void AddSplits(const Plan& plan, std::vector<cublasLtMatmulAlgo_t>& candidates) const;
  /// The algorithm of all products of a kind, whatever their rows, and their outputs unless these are too odd for it.
  [[nodiscard]] std::optional<cublasLtMatmulAlgo_t> OneAlgorithm(const Product& product);
  /// That of products with so many outputs.
  [[nodiscard]] std::optional<cublasLtMatmulAlgo_t> OneAlgorithm(Product of_all, int64_t outputs);

  Device& device_;
  int ordinal_;
  bool deterministic_;
  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  std::map<Product, std::unique_ptr<Plan>> plans_;
  std::map<Product, cublasLtMatmulAlgo_t> tuned_;
  std::map<Product, cublasLtMatmulAlgo_t> one_;  // where deterministic, by the product that they were chosen for
  std::set<Product> refused_;                    // kinds of scaled products that cuBLASLt does not do
  Buffer codes_;                                 // e4m3 of rows of x
  Buffer row_scales_;                            // and their scales
  TensorView coded_;                             // rows whose e4m3 a kernel has left there; empty: none
  Buffer sums_;                                  // of MultiplySums, f32
};

}  // namespace runahead::cuda
