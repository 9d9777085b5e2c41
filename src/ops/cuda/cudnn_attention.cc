#include "ops/cuda/cudnn_attention.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <compare>
#include <map>
#include <mutex>
#include <unordered_map>

#include "runahead/error.h"
#include "tensor/cuda_check.h"

// The library is opened when the first GPU is used, so that a machine without it runs on the CPU.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}  // namespace cudnn_frontend

namespace runahead::cuda {
namespace {

namespace fe = cudnn_frontend;
using TensorAttributes = std::shared_ptr<fe::graph::Tensor_attributes>;

void LoadLibrary() {
  static std::once_flag once;
  std::call_once(once, [] {
    constexpr const char* kName = "libcudnn.so.9";
    fe::cudnn_dlhandle = ::dlopen(kName, RTLD_NOW | RTLD_GLOBAL);
    if (fe::cudnn_dlhandle == nullptr) throw ConfigError(fmt::format("cuDNN: cannot load {}: {}", kName, dlerror()));
  });
}

void CheckCudnn(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw DeviceError(fmt::format("cuDNN: {} failed: {}", what, fe::detail::get_error_string(status)));
}

void CheckFrontend(fe::error_t error, const char* what) {
  if (error.is_bad()) throw DeviceError(fmt::format("cuDNN: {} failed: {}", what, error.get_message()));
}

/// The shapes of one call that a plan depends on.
struct Problem {
  // What a compiled kernel serves.
  DType dtype = DType::kBF16;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t q_stride = 0;
  int64_t kv_stride = 0;
  int64_t out_stride = 0;
  float scale = 1;
  int64_t window = 0;  // 0: all
  // What differs from prompt to prompt.
  int64_t queries = 0;
  int64_t keys = 0;

  friend auto operator<=>(const Problem&, const Problem&) = default;
};

/// The part of a problem whose plans share kernels.
Problem KindOf(Problem problem) {
  problem.queries = 0;
  problem.keys = 0;
  return problem;
}

enum Uid : int64_t { kQ = 1, kK, kV, kOut };

TensorAttributes AddTensor(fe::graph::Graph& graph, Uid uid, int64_t heads, int64_t rows, int64_t head_dim,
                           int64_t row_stride) {
  return graph.tensor(fe::graph::Tensor_attributes()
                          .set_uid(uid)
                          .set_dim({1, heads, rows, head_dim})
                          .set_stride({rows * row_stride, head_dim, row_stride, 1}));
}

/// A shape's plan; without a graph when cuDNN has none for it.
struct Plan {
  std::unique_ptr<fe::graph::Graph> graph;
  size_t workspace_bytes = 0;
};

std::unique_ptr<fe::graph::Graph> Describe(const Problem& problem, std::shared_ptr<fe::KernelCache> kernels) {
  auto graph = std::make_unique<fe::graph::Graph>();
  graph->set_io_data_type(problem.dtype == DType::kBF16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT)
      .set_dynamic_shape_enabled(true)
      .set_kernel_cache(std::move(kernels));
  const auto q = AddTensor(*graph, kQ, problem.q_heads, problem.queries, problem.head_dim, problem.q_stride);
  const auto k = AddTensor(*graph, kK, problem.kv_heads, problem.keys, problem.head_dim, problem.kv_stride);
  const auto v = AddTensor(*graph, kV, problem.kv_heads, problem.keys, problem.head_dim, problem.kv_stride);
  auto options = fe::graph::SDPA_attributes()
                     .set_name("attention")
                     .set_generate_stats(false)
                     .set_attn_scale(problem.scale)
                     .set_diagonal_alignment(fe::DiagonalAlignment_t::BOTTOM_RIGHT)
                     .set_diagonal_band_right_bound(0);
  if (problem.window > 0) options.set_diagonal_band_left_bound(static_cast<int>(problem.window));
  const auto [out, stats] = graph->sdpa(q, k, v, options);
  out->set_output(true)
      .set_uid(kOut)
      .set_dim({1, problem.q_heads, problem.queries, problem.head_dim})
      .set_stride({problem.queries * problem.out_stride, problem.head_dim, problem.out_stride, 1});
  return graph;
}

bool Aligned(const TensorView& view) {
  constexpr int64_t kElements = 8;  // of 16 bits in a 16-byte access
  return reinterpret_cast<uintptr_t>(view.data()) % 16 == 0 && view.row_stride() % kElements == 0;
}

}  // namespace

struct CudnnAttention::State {
  State(Device& owner, int index) : device(owner), ordinal(index) {}

  Plan& PlanOf(const Problem& problem) {
    constexpr size_t kMostPlans = 256;
    const auto found = plans.find(problem);
    if (found != plans.end()) return found->second;
    if (plans.size() >= kMostPlans) plans.clear();
    return plans.emplace(problem, MakePlan(problem)).first->second;
  }

  Plan MakePlan(const Problem& problem) {
    std::shared_ptr<fe::KernelCache>& cache = kernels[KindOf(problem)];
    if (!cache) cache = std::make_shared<fe::KernelCache>();
    Plan plan;
    auto graph = Describe(problem, cache);
    if (graph->validate().is_bad() || graph->build_operation_graph(handle).is_bad() ||
        graph->create_execution_plans({fe::HeurMode_t::A}).is_bad() || graph->check_support(handle).is_bad()) {
      return plan;
    }
    CheckFrontend(graph->build_plans(handle), "building an attention plan");
    int64_t bytes = 0;
    CheckFrontend(graph->get_workspace_size(bytes), "planning an attention's workspace");
    plan.workspace_bytes = static_cast<size_t>(bytes);
    if (plan.workspace_bytes > workspace.bytes()) workspace = device.Allocate(plan.workspace_bytes);
    plan.graph = std::move(graph);
    return plan;
  }

  Device& device;
  int ordinal;
  cudnnHandle_t handle = nullptr;
  Buffer workspace;
  std::map<Problem, std::shared_ptr<fe::KernelCache>> kernels;
  std::map<Problem, Plan> plans;
};

CudnnAttention::CudnnAttention(Device& device, int ordinal) : state_(std::make_unique<State>(device, ordinal)) {
  LoadLibrary();
  const CurrentDevice current(ordinal);
  CheckCudnn(fe::detail::create_handle(&state_->handle), "cudnnCreate");
}

CudnnAttention::~CudnnAttention() { (void)fe::detail::destroy_handle(state_->handle); }

bool CudnnAttention::Attend(TensorView q, int64_t position, const KvSpan& keys, const AttentionOptions& options,
                            TensorView out, cudaStream_t stream) {
  constexpr int64_t kMaxHeadDim = 256;
  const int64_t head_dim = q.shape()[2];
  if (q.dtype() == DType::kF32 || head_dim % 8 != 0 || head_dim > kMaxHeadDim || options.softcap > 0 ||
      options.key_bias.data() != nullptr || !Aligned(q) || !Aligned(keys.k) || !Aligned(keys.v) || !Aligned(out)) {
    return false;
  }
  Problem problem;
  problem.dtype = q.dtype();
  problem.q_heads = q.shape()[1];
  problem.kv_heads = keys.k.shape()[1];
  problem.head_dim = head_dim;
  problem.q_stride = q.row_stride();
  problem.kv_stride = keys.k.row_stride();
  problem.out_stride = out.row_stride();
  problem.scale = options.scale;
  problem.queries = q.rows();
  problem.keys = position + q.rows();
  problem.window = options.window < problem.keys ? options.window : 0;
  const Plan& plan = state_->PlanOf(problem);
  if (!plan.graph) return false;

  CheckCudnn(fe::detail::set_stream(state_->handle, stream), "cudnnSetStream");
  std::unordered_map<int64_t, void*> tensors = {
      {kQ, q.data()}, {kK, keys.k.data()}, {kV, keys.v.data()}, {kOut, out.data()}};
  CheckFrontend(plan.graph->execute(state_->handle, tensors, state_->workspace.data()), "attention");
  return true;
}

}  // namespace runahead::cuda
