#include "ops/cuda/matmul.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <tuple>
#include <utility>

#include "runahead/error.h"
#include "tensor/cuda_check.h"

namespace runahead::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;  // most memory of cuBLASLt; Hopper's kernels ask for 32 MB
constexpr int kCandidates = 16;

void CheckBlas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(fmt::format("cuBLASLt: {} failed: {}", what, cublasLtGetStatusString(status)));
}

/// cuBLAS of CUDA 12.9 and newer multiplies by scales of rows.
#if CUBLAS_VERSION >= 120900
constexpr cublasLtMatmulMatrixScale_t kRowScales = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
constexpr bool kHasRowScales = true;
#else
constexpr int32_t kRowScales = 3;
constexpr bool kHasRowScales = false;
#endif

cudaDataType_t BlasType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return CUDA_R_32F;
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF16:
      return CUDA_R_16F;
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown dtype");
}

template <typename T>
void SetLayout(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, const T& value) {
  CheckBlas(cublasLtMatrixLayoutSetAttribute(layout, attribute, &value, sizeof(value)),
            "cublasLtMatrixLayoutSetAttribute");
}

/// The largest power of two up to 16 that divides the address of every row.
uint8_t Alignment(const void* data, int64_t stride, size_t element_bytes) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(data) | (static_cast<uintptr_t>(stride) * element_bytes) | 16U;
  return static_cast<uint8_t>(bits & (~bits + 1));
}

/// A matrix [rows, columns], rows `stride` elements apart, for a library that stores columns: its transpose. `heads`
/// of them, `distance` elements apart.
cublasLtMatrixLayout_t MakeLayout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t stride, int32_t heads,
                                  int64_t distance) {
  cublasLtMatrixLayout_t layout = nullptr;
  CheckBlas(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(columns), static_cast<uint64_t>(rows),
                                       std::max(stride, columns)),
            "cublasLtMatrixLayoutCreate");
  if (heads > 1) {
    SetLayout(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, heads);
    SetLayout(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, distance);
  }
  return layout;
}

template <typename T>
void Set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  CheckBlas(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)),
            "cublasLtMatmulDescSetAttribute");
}

template <typename T>
void Prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  CheckBlas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
            "cublasLtMatmulPreferenceSetAttribute");
}

Product Describe(TensorView x, const CudaLinear& linear, int first, int count, bool adds, TensorView y) {
  Product product;
  product.rows = x.rows();
  product.in_features = linear.in_features();
  product.out_features = linear.out_features(first, count);
  product.x_stride = x.row_stride();
  product.y_stride = y.row_stride();
  product.compute = linear.compute();
  product.result = y.dtype();
  product.biased = linear.Bias(first, y.dtype()) != nullptr;
  product.adds = adds;
  product.x_alignment = Alignment(x.data(), x.row_stride(), SizeOf(x.dtype()));
  product.y_alignment = Alignment(y.data(), y.row_stride(), SizeOf(y.dtype()));
  product.weight_alignment = Alignment(linear.Weights(first), linear.in_features(), linear.weight_bytes());
  return product;
}

/// What a tuned algorithm is kept under: everything but the rows' number and distances.
Product ClassOf(Product product) {
  product.x_stride = 0;
  product.y_stride = 0;
  return product;
}

/// `algorithm`, with the inputs split among `splits` times as many blocks, whose sums are joined in f32.
cublasLtMatmulAlgo_t WithSplits(cublasLtMatmulAlgo_t algorithm, int32_t splits) {
  const uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  (void)cublasLtMatmulAlgoConfigSetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof(splits));
  (void)cublasLtMatmulAlgoConfigSetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                             sizeof(scheme));
  return algorithm;
}

}  // namespace

std::optional<Product> Multiplier::ScaledProduct(const CudaLinear& linear, int first, int count, bool adds,
                                                 TensorView y) {
  const int64_t in = linear.in_features();
  // An x of codes, which are aligned.
  Product product = Describe(TensorView(nullptr, y.dtype(), {y.rows(), in}), linear, first, count, adds, y);
  product.operand = Operand::kScaledE4M3;
  product.x_alignment = product.weight_alignment;
  const bool aligned = product.weight_alignment == 16 && product.y_alignment == 16 &&
                       reinterpret_cast<uintptr_t>(linear.Scales(first)) % 16 == 0;
  const bool wide_bias = product.biased && product.result == DType::kF32;  // biases of f32 sums are bf16
  if (!aligned || product.out_features % kFp8Multiple != 0 || wide_bias) return std::nullopt;
  return product;
}

std::unique_ptr<CudaLinear> CudaLinear::CopyTo(Device& device, Stream& stream) const {
  const auto copy = [&](const Buffer& from) {
    Buffer to = device.Allocate(from.bytes());
    if (from.bytes() > 0) device.Copy(to.data(), from.data(), from.bytes(), stream);
    return to;
  };
  Memory memory{copy(memory_.weights), copy(memory_.scales), copy(memory_.wide_bias), copy(memory_.narrow_bias),
                memory_.first_rows};
  return std::make_unique<CudaLinear>(std::move(memory), in_features_, compute_);
}

/// The descriptors of a product and the algorithm chosen for it.
struct Multiplier::Plan {
  /// `somewhere`: device memory that stands for scales and biases until they are known.
  Plan(const Product& product, const void* somewhere) : kept(product.adds ? 1.0F : 0.0F) {
    CheckBlas(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    Set(operation, CUBLASLT_MATMUL_DESC_TRANSA, product.turned ? CUBLAS_OP_N : CUBLAS_OP_T);
    if (product.biased) {
      Set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      Set(operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, BlasType(product.result));
    }
    if (product.operand != Operand::kCompute) {
      Set(operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});  // errors far below those of e4m3
    }
    if (product.operand == Operand::kScaledE4M3) {
      Set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, somewhere);
      Set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, somewhere);
      if (product.biased) Set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, somewhere);
      Set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, kRowScales);
      Set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, kRowScales);
    }
    const auto [in, out, heads] = std::tuple(product.in_features, product.out_features, product.heads);
    const cudaDataType_t type =
        product.operand == Operand::kCompute ? BlasType(product.compute) : cudaDataType_t{CUDA_R_8F_E4M3};
    weights = product.turned ? MakeLayout(type, in, out, out, heads, in * out)
                             : MakeLayout(type, out, in, in, heads, in * out);
    x = MakeLayout(type, product.rows, in, product.x_stride, heads, product.shared_x ? 0 : in);
    y = MakeLayout(BlasType(product.result), product.rows, out, product.y_stride, heads,
                   product.y_step > 0 ? product.y_step : out);
  }
  ~Plan() {
    (void)cublasLtMatrixLayoutDestroy(y);
    (void)cublasLtMatrixLayoutDestroy(x);
    (void)cublasLtMatrixLayoutDestroy(weights);
    (void)cublasLtMatmulDescDestroy(operation);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  /// cuBLASLt's guesses, the most promising first. `whole`: only those that do not split the inputs among blocks,
  /// whose sums would be joined in an order of their own.
  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> Candidates(cublasLtHandle_t handle, const Product& product,
                                                             int most, bool whole = false) const {
    cublasLtMatmulPreference_t preference = nullptr;
    CheckBlas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    Prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t{product.weight_alignment});
    Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t{product.x_alignment});
    Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t{product.y_alignment});
    Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t{product.y_alignment});
    if (whole)
      Prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, operation, weights, x, y, y, preference, most, found.data(), &count);
    (void)cublasLtMatmulPreferenceDestroy(preference);
    const bool may_fail = product.operand == Operand::kScaledE4M3;
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (may_fail && status != CUBLAS_STATUS_SUCCESS)) return {};
    CheckBlas(status, "cublasLtMatmulAlgoGetHeuristic");
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; ++i) {
      if (found[static_cast<size_t>(i)].state == CUBLAS_STATUS_SUCCESS) {
        algorithms.push_back(found[static_cast<size_t>(i)].algo);
      }
    }
    return algorithms;
  }

  /// Whether `algorithm`, found for another product, can do this one.
  [[nodiscard]] bool Accepts(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& candidate) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(handle, operation, weights, x, y, y, &candidate, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= kWorkspaceBytes;
  }

  float kept;  // factor of the old y: 0 or 1
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weights = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

Multiplier::Multiplier(Device& device, int ordinal, bool deterministic)
    : device_(device), ordinal_(ordinal), deterministic_(deterministic) {
  const CurrentDevice current(ordinal);
  CheckBlas(cublasLtCreate(&handle_), "cublasLtCreate");
  workspace_ = device.Allocate(kWorkspaceBytes);
}

Multiplier::~Multiplier() { (void)cublasLtDestroy(handle_); }

std::optional<cublasLtMatmulAlgo_t> Multiplier::OneAlgorithm(const Product& product) {
  constexpr int64_t kUsual = 4096;  // outputs
  constexpr int64_t kRows = 512;    // between an answer's and a prompt's
  Product any = product;
  any.rows = kRows;
  for (const int64_t outputs : {kUsual, product.out_features}) {
    const std::optional<cublasLtMatmulAlgo_t> one = OneAlgorithm(any, outputs);
    if (one && Plan(any, workspace_.data()).Accepts(handle_, *one)) return one;
  }
  return std::nullopt;
}

std::optional<cublasLtMatmulAlgo_t> Multiplier::OneAlgorithm(Product of_all, int64_t outputs) {
  of_all.out_features = outputs;
  of_all.x_stride = of_all.heads * of_all.in_features;
  of_all.y_stride = of_all.heads * outputs;
  const auto found = one_.find(of_all);
  if (found != one_.end()) return found->second;
  const std::vector<cublasLtMatmulAlgo_t> candidates =
      Plan(of_all, workspace_.data()).Candidates(handle_, of_all, 1, true);
  if (candidates.empty()) return std::nullopt;
  return one_.emplace(of_all, candidates.front()).first->second;
}

std::unique_ptr<Multiplier::Plan> Multiplier::MakePlan(const Product& product) {
  auto plan = std::make_unique<Plan>(product, workspace_.data());
  if (deterministic_) {
    const std::optional<cublasLtMatmulAlgo_t> one = OneAlgorithm(product);
    if (!one || !plan->Accepts(handle_, *one)) return nullptr;
    plan->algorithm = *one;
    return plan;
  }
  // An algorithm timed on the same matrix with about as many rows is better than a guess. Beyond some thousand rows
  // their number makes no difference.
  constexpr int64_t kMany = 8192;
  constexpr double kFarthest = 1.5;
  double nearest = kFarthest;
  bool chosen = false;
  for (const auto& [timed, algorithm] : tuned_) {
    Product same = ClassOf(product);
    same.rows = timed.rows;
    if (same != timed) continue;
    const auto [fewer, more] = std::minmax(timed.rows, std::min(product.rows, kMany));
    const double ratio = static_cast<double>(more) / static_cast<double>(fewer);
    if (ratio > nearest || !plan->Accepts(handle_, algorithm)) continue;
    nearest = ratio;
    plan->algorithm = algorithm;
    chosen = true;
  }
  if (chosen) return plan;
  const std::vector<cublasLtMatmulAlgo_t> candidates = plan->Candidates(handle_, product, 1);
  if (candidates.empty()) return nullptr;
  plan->algorithm = candidates.front();
  return plan;
}

Multiplier::Plan* Multiplier::FindPlan(const Product& product) {
  constexpr size_t kMostPlans = 4096;
  const auto found = plans_.find(product);
  if (found != plans_.end()) return found->second.get();
  if (plans_.size() >= kMostPlans) plans_.clear();
  std::unique_ptr<Plan> plan = MakePlan(product);
  return plan == nullptr ? nullptr : plans_.emplace(product, std::move(plan)).first->second.get();
}

Multiplier::Plan& Multiplier::PlanOf(const Product& product) {
  if (Plan* const plan = FindPlan(product); plan != nullptr) return *plan;
  throw DeviceError(fmt::format("cuBLASLt: no algorithm {}for [{}, {}] x [{}, {}]",
                                deterministic_ ? "that does any rows alike " : "", product.rows, product.in_features,
                                product.in_features, product.out_features));
}

cublasStatus_t Multiplier::TryRun(const Plan& plan, const Operands& operands, cudaStream_t stream) {
  if (operands.bias != nullptr) Set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
  if (operands.x_scales != nullptr) {
    Set(plan.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, operands.weight_scales);
    Set(plan.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, operands.x_scales);
  }
  const float one = 1;
  return cublasLtMatmul(handle_, plan.operation, &one, operands.weights, plan.weights, operands.x, plan.x, &plan.kept,
                        operands.y, plan.y, operands.y, plan.y, &plan.algorithm, workspace_.data(), kWorkspaceBytes,
                        stream);
}

void Multiplier::Run(const Plan& plan, const Operands& operands, cudaStream_t stream) {
  CheckBlas(TryRun(plan, operands, stream), "cublasLtMatmul");
}

bool Multiplier::MultiplyScaled(const Product& product, const Operands& operands, cudaStream_t stream) {
  Product kind = ClassOf(product);
  if (deterministic_) kind.rows = 0;  // all rows are refused alike
  if (!kHasRowScales || refused_.contains(kind)) return false;
  const Plan* const plan = FindPlan(product);
  const cublasStatus_t status = plan == nullptr ? CUBLAS_STATUS_NOT_SUPPORTED : TryRun(*plan, operands, stream);
  if (status == CUBLAS_STATUS_SUCCESS) return true;
  // Scales that it does not do may be refused here, in the words of its header.
  const bool refuses = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
  if (!refuses) CheckBlas(status, "cublasLtMatmul of e4m3");
  refused_.insert(kind);
  return false;
}

void Multiplier::Multiply(TensorView x, const CudaLinear& linear, int first, int count, bool adds, TensorView y,
                          const LaunchOn& on) {
  if (linear.is_fp8()) return MultiplyFp8(x, linear, first, count, adds, y, on);
  const Product product = Describe(x, linear, first, count, adds, y);
  Run(PlanOf(product), {x.data(), linear.Weights(first), linear.Bias(first, y.dtype()), y.data()}, on.stream);
}

void Multiplier::MultiplyByHead(TensorView x, const CudaLinear& linear, TensorView y, const LaunchOn& on) {
  CHECK(linear.Bias(0, y.dtype()) == nullptr && !linear.is_fp8());
  const int64_t in = linear.in_features();
  const int64_t out = linear.out_features(0, 1);
  Product product = Describe(x.Columns(0, in), linear, 0, 1, false, y.Columns(0, out));
  product.heads = linear.parts();
  // Every head's address counts.
  product.x_alignment = std::min(product.x_alignment, Alignment(x.data(), in, SizeOf(x.dtype())));
  product.y_alignment = std::min(product.y_alignment, Alignment(y.data(), out, SizeOf(y.dtype())));
  product.weight_alignment =
      std::min(product.weight_alignment, Alignment(linear.Weights(0), in * out, SizeOf(x.dtype())));
  Run(PlanOf(product), {x.data(), linear.Weights(0), nullptr, y.data()}, on.stream);
}

void Multiplier::MultiplyIntoHeads(TensorView x, const CudaLinear& linear, int first, bool turned, TensorView y,
                                   const LaunchOn& on) {
  CHECK(linear.Bias(0, y.dtype()) == nullptr && !linear.is_fp8());
  const int64_t stored = linear.out_features(0, 1);
  const auto element = SizeOf(x.dtype());
  Product product;
  product.rows = x.rows();
  product.in_features = turned ? stored : linear.in_features();
  product.out_features = turned ? linear.in_features() : stored;
  CHECK_EQ(x.row_elements(), product.in_features);
  CHECK_LE(product.out_features, y.shape()[2]);
  product.x_stride = x.row_stride();
  product.y_stride = y.row_stride();
  product.heads = static_cast<int32_t>(y.shape()[1]);
  CHECK_LE(first + product.heads, linear.parts());
  product.shared_x = true;
  product.turned = turned;
  product.y_step = y.shape()[2];
  product.compute = linear.compute();
  product.result = y.dtype();
  product.x_alignment = Alignment(x.data(), x.row_stride(), element);
  product.y_alignment =
      std::min(Alignment(y.data(), y.row_stride(), element), Alignment(y.data(), product.y_step, element));
  product.weight_alignment = std::min(Alignment(linear.Weights(first), linear.in_features(), element),
                                      Alignment(linear.Weights(first), linear.in_features() * stored, element));
  Run(PlanOf(product), {x.data(), linear.Weights(first), nullptr, y.data()}, on.stream);
}

std::vector<float> Multiplier::Time(const Plan& plan, std::span<const Operands> operands, int before, int runs,
                                    cudaStream_t stream) {
  std::vector<cudaEvent_t> events(static_cast<size_t>(runs) + 1);
  for (cudaEvent_t& event : events) CheckCuda(cudaEventCreate(&event), ordinal_, "cudaEventCreate");
  size_t turn = 0;
  const auto run = [&] { Run(plan, operands[turn++ % operands.size()], stream); };
  for (int i = 0; i < before; ++i) run();
  CheckCuda(cudaEventRecord(events[0], stream), ordinal_, "cudaEventRecord");
  for (size_t i = 1; i < events.size(); ++i) {
    run();
    CheckCuda(cudaEventRecord(events[i], stream), ordinal_, "cudaEventRecord");
  }
  CheckCuda(cudaStreamSynchronize(stream), ordinal_, "timing a matmul");
  std::vector<float> times;
  for (size_t i = 1; i < events.size(); ++i) {
    float ms = 0;
    CheckCuda(cudaEventElapsedTime(&ms, events[i - 1], events[i]), ordinal_, "cudaEventElapsedTime");
    times.push_back(ms);
  }
  for (const cudaEvent_t event : events) (void)cudaEventDestroy(event);
  return times;
}

void Multiplier::AddSplits(const Plan& plan, std::vector<cublasLtMatmulAlgo_t>& candidates) const {
  constexpr size_t kPromising = 8;
  const std::vector<cublasLtMatmulAlgo_t> promising(candidates.begin(),
                                                    candidates.begin() + std::min(candidates.size(), kPromising));
  for (const cublasLtMatmulAlgo_t& candidate : promising) {
    for (const int32_t splits : {2, 3, 4, 6}) {
      const cublasLtMatmulAlgo_t split = WithSplits(candidate, splits);
      if (plan.Accepts(handle_, split)) candidates.push_back(split);
    }
  }
}

void Multiplier::Tune(std::span<const CudaLinear* const> alike, int64_t rows, DType result, bool adds,
                      const LaunchOn& on) {
  const CudaLinear& linear = *alike.front();
  const int64_t out_features = linear.out_features(0, linear.parts());
  const auto bytes = [&](int64_t columns, DType dtype) {
    return static_cast<size_t>(rows * columns) * SizeOf(dtype);
  };
  const size_t needed = bytes(linear.in_features(), linear.compute()) + bytes(out_features, result);
  if (2 * needed > device_.FreeBytes()) return;  // a guess will do where memory is short
  const Buffer x_memory = device_.Allocate(bytes(linear.in_features(), linear.compute()));
  const Buffer y_memory = device_.Allocate(bytes(out_features, result));
  const TensorView x = x_memory.View(linear.compute(), {rows, linear.in_features()});
  const TensorView y = y_memory.View(result, {rows, out_features});
  const bool fp8 = linear.is_fp8();
  const std::optional<Product> described =
      fp8 ? ScaledProduct(linear, 0, linear.parts(), adds, y) : Describe(x, linear, 0, linear.parts(), adds, y);
  if (!described) return;
  const Product& product = *described;
  const Product kept_as = ClassOf(product);
  if (tuned_.contains(kept_as)) return;
  FillRandom(on, x.data(), x.dtype(), x.shape().elements(), 1);
  if (adds) FillRandom(on, y.data(), y.dtype(), y.shape().elements(), 2);

  std::vector<Operands> operands;
  ForgetCodes();
  const Fp8Rows codes = fp8 ? QuantiseRows(x, on) : Fp8Rows{};
  for (const CudaLinear* weights : alike) {
    operands.push_back({fp8 ? codes.codes : x.data(), weights->Weights(0), weights->Bias(0, result), y.data(),
                        codes.scales, weights->Scales(0)});
  }
  if (fp8 && !MultiplyScaled(product, operands.front(), on.stream)) return;
  Plan plan(product, workspace_.data());
  constexpr int64_t kFewRows = 256;  // products of fewer rows take as long as the weights from memory
  const bool few = rows < kFewRows;
  std::vector<cublasLtMatmulAlgo_t> candidates = plan.Candidates(handle_, product, kCandidates);
  if (few && !fp8) AddSplits(plan, candidates);
  std::vector<std::pair<float, cublasLtMatmulAlgo_t>> timed;
  for (const cublasLtMatmulAlgo_t& candidate : candidates) {
    constexpr int kRuns = 3;
    constexpr int kBriefRuns = 7;
    plan.algorithm = candidate;
    if (fp8 && TryRun(plan, operands.front(), on.stream) != CUBLAS_STATUS_SUCCESS) continue;
    std::vector<float> times = Time(plan, operands, 1, few ? kBriefRuns : kRuns, on.stream);
    // Of brief ones the median: the least may have met weights in the second cache.
    const auto chosen = times.begin() + (few ? std::ssize(times) / 2 : 0);
    std::nth_element(times.begin(), chosen, times.end());
    timed.emplace_back(*chosen, candidate);
  }
  const auto faster = [](const auto& a, const auto& b) { return a.first < b.first; };
  std::stable_sort(timed.begin(), timed.end(), faster);
  if (timed.empty()) return;
  constexpr int64_t kLong = 4096;   // rows: prompts that the clocks go down for
  constexpr float kWorthMs = 0.3F;  // shortest run that is worth settling the clocks for, ms
  constexpr float kSettledMs = 80;  // runs until the clocks have settled, ms
  constexpr float kMeasuredMs = 40;
  constexpr size_t kFinalists = 3;
  const float once = timed.front().first;
  if (rows >= kLong && once >= kWorthMs) {
    timed.resize(std::min(timed.size(), kFinalists));
    for (auto& [ms, candidate] : timed) {
      plan.algorithm = candidate;
      const std::vector<float> times = Time(plan, operands, static_cast<int>(kSettledMs / once),
                                            static_cast<int>(kMeasuredMs / once) + 1, on.stream);
      ms = std::accumulate(times.begin(), times.end(), 0.0F) / static_cast<float>(times.size());
    }
    std::stable_sort(timed.begin(), timed.end(), faster);
  }
  tuned_[kept_as] = timed.front().second;
  plans_.clear();  // some may do better now
}

}  // namespace runahead::cuda
