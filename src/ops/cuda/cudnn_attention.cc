#include "ops/cuda/cudnn_attention.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <compare>
#include <map>
#include <mutex>
#include <optional>
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

/// What a plan depends on. The lengths themselves are tensors, so that one plan serves all prompts up to its size.
struct Problem {
  DType dtype = DType::kBF16;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t value_dim = 0;
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t out_stride = 0;
  float scale = 1;
  int64_t window = 0;        // 0: all
  int64_t most = 0;          // keys
  int64_t most_queries = 0;  // queries
  bool sums = false;         // the logarithms of the sums of the weights are results too

  friend auto operator<=>(const Problem&, const Problem&) = default;
};

/// The size of the plan for `keys` rows: few sizes, and no more than four times what is needed, since blocks of
/// queries that are not there end at once.
int64_t PlanSize(int64_t keys, bool deterministic) {
  constexpr int64_t kSmallest = 1024;
  constexpr int64_t kUsual = 65536;
  int64_t size = deterministic ? kUsual : kSmallest;
  while (size < keys) size *= 4;
  return size;
}

enum Uid : int64_t { kQ = 1, kK, kV, kOut, kQueries, kKeys, kQEnds, kKEnds, kVEnds, kOutEnds, kSums };

/// The lengths of a call as plans read them, in device memory.
struct Lengths {
  int32_t queries;
  int32_t keys;
  int32_t q_ends[2];  // begin and end of the rows of q, elements
  int32_t k_ends[2];
  int32_t v_ends[2];
  int32_t out_ends[2];

  friend bool operator==(const Lengths&, const Lengths&) = default;
};
static_assert(sizeof(Lengths) == 10 * sizeof(int32_t));

/// `count` integers in device memory.
TensorAttributes AddIntegers(fe::graph::Graph& graph, Uid uid, int64_t count) {
  return graph.tensor(fe::graph::Tensor_attributes()
                          .set_uid(uid)
                          .set_dim({count, 1, 1, 1})
                          .set_stride({1, 1, 1, 1})
                          .set_data_type(fe::DataType_t::INT32));
}

fe::graph::Tensor_attributes Rows(Uid uid, int64_t heads, int64_t rows, int64_t head_dim, int64_t row_stride) {
  return fe::graph::Tensor_attributes()
      .set_uid(uid)
      .set_dim({1, heads, rows, head_dim})
      .set_stride({rows * row_stride, head_dim, row_stride, 1});
}

std::unique_ptr<fe::graph::Graph> Describe(const Problem& problem) {
  auto graph = std::make_unique<fe::graph::Graph>();
  graph->set_io_data_type(problem.dtype == DType::kBF16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const auto [dtype, q_heads, kv_heads, head_dim, value_dim, q_stride, k_stride, v_stride, out_stride, scale, window,
              most, most_queries, sums] = problem;
  const auto k_ends = AddIntegers(*graph, kKEnds, 2);
  const auto v_ends = AddIntegers(*graph, kVEnds, 2);
  const auto q_ends = AddIntegers(*graph, kQEnds, 2);
  const auto q = graph->tensor(Rows(kQ, q_heads, most_queries, head_dim, q_stride).set_ragged_offset(q_ends));
  const auto k = graph->tensor(Rows(kK, kv_heads, most, head_dim, k_stride).set_ragged_offset(k_ends));
  const auto v = graph->tensor(Rows(kV, kv_heads, most, value_dim, v_stride).set_ragged_offset(v_ends));
  auto options = fe::graph::SDPA_attributes()
                     .set_name("attention")
                     .set_generate_stats(sums)
                     .set_attn_scale(scale)
                     .set_padding_mask(true)
                     .set_seq_len_q(AddIntegers(*graph, kQueries, 1))
                     .set_seq_len_kv(AddIntegers(*graph, kKeys, 1))
                     .set_diagonal_alignment(fe::DiagonalAlignment_t::BOTTOM_RIGHT)
                     .set_diagonal_band_right_bound(0);
  if (window > 0) options.set_diagonal_band_left_bound(static_cast<int>(window));
  const auto [out, logarithms] = graph->sdpa(q, k, v, options);
  if (sums) {
    logarithms->set_output(true)
        .set_uid(kSums)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim({1, q_heads, most_queries, 1})
        .set_stride({q_heads * most_queries, most_queries, 1, 1});
  }
  out->set_output(true)
      .set_uid(kOut)
      .set_dim({1, q_heads, most_queries, value_dim})
      .set_stride({most_queries * out_stride, value_dim, out_stride, 1})
      .set_ragged_offset(AddIntegers(*graph, kOutEnds, 2));
  return graph;
}

/// A problem's plan; without a graph when cuDNN has none for it.
struct Plan {
  std::unique_ptr<fe::graph::Graph> graph;
};

bool Aligned(const TensorView& view) {
  constexpr int64_t kElements = 8;  // 16-bit elements in a 16-byte access
  return reinterpret_cast<uintptr_t>(view.data()) % 16 == 0 && view.row_stride() % kElements == 0;
}

}  // namespace

struct CudnnAttention::State {
  State(Device& owner, int index, bool same)
      : device(owner), ordinal(index), deterministic(same), lengths(owner.Allocate(sizeof(Lengths))) {}

  Plan& PlanOf(const Problem& problem) {
    constexpr size_t kMostPlans = 256;
    const auto found = plans.find(problem);
    if (found != plans.end()) return found->second;
    if (plans.size() >= kMostPlans) plans.clear();
    return plans.emplace(problem, MakePlan(problem)).first->second;
  }

  /// Puts the lengths behind the work of `on`; all layers of a pass have the same.
  void WriteLengths(const Lengths& values, const LaunchOn& on) {
    if (written == values && written_on == on.stream) return;
    WriteIntegers(on, reinterpret_cast<const int32_t*>(&values), sizeof(Lengths) / sizeof(int32_t),
                  reinterpret_cast<int32_t*>(lengths.data()));
    written = values;
    written_on = on.stream;
  }

  /// [heads, queries], f32.
  TensorView RoomForSums(int64_t heads, int64_t queries) {
    const auto bytes = static_cast<size_t>(heads * queries) * sizeof(float);
    if (sums.bytes() < bytes) {
      sums = Buffer();
      sums = device.Allocate(bytes);
    }
    return sums.View(DType::kF32, {heads, queries});
  }

  Plan MakePlan(const Problem& problem) {
    Plan plan;
    auto graph = Describe(problem);
    if (graph->validate().is_bad() || graph->build_operation_graph(handle).is_bad() ||
        graph->create_execution_plans({fe::HeurMode_t::A}).is_bad() || graph->check_support(handle).is_bad() ||
        graph->build_plans(handle).is_bad()) {
      return plan;
    }
    int64_t bytes = 0;
    CheckFrontend(graph->get_workspace_size(bytes), "planning an attention's workspace");
    if (static_cast<size_t>(bytes) > workspace.bytes()) workspace = device.Allocate(static_cast<size_t>(bytes));
    plan.graph = std::move(graph);
    return plan;
  }

  Device& device;
  int ordinal;
  bool deterministic;
  cudnnHandle_t handle = nullptr;
  Buffer workspace;
  Buffer lengths;
  Buffer sums;
  std::optional<Lengths> written;  // contents of `lengths` for the work that comes
  cudaStream_t written_on = nullptr;
  std::map<Problem, Plan> plans;
};

CudnnAttention::CudnnAttention(Device& device, int ordinal, bool deterministic)
    : state_(std::make_unique<State>(device, ordinal, deterministic)) {
  LoadLibrary();
  const CurrentDevice current(ordinal);
  CheckCudnn(fe::detail::create_handle(&state_->handle), "cudnnCreate");
}

CudnnAttention::~CudnnAttention() { (void)fe::detail::destroy_handle(state_->handle); }

bool CudnnAttention::Attend(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options,
                            TensorView out, const LaunchOn& on) {
  constexpr int64_t kMaxHeadDim = 256;
  const int64_t head_dim = q.shape()[2];
  if (q.dtype() == DType::kF32 || head_dim % 8 != 0 || out.shape()[2] % 8 != 0 || head_dim > kMaxHeadDim ||
      options.softcap > 0 || options.key_bias.data() != nullptr || !Aligned(q) || !Aligned(keys.k) ||
      !Aligned(keys.v) || !Aligned(out)) {
    return false;
  }
  // Rows before the first query's window may never have been written: the kernels read whole tiles, and what is no
  // number there would not be masked away. So the keys begin where the window does.
  const int64_t end = position + q.rows();
  const bool windowed = options.window > 0 && options.window < end;
  const int64_t first = windowed ? std::max<int64_t>(0, position + 1 - options.window) : 0;
  const TensorView k = keys.k.Rows(first, keys.k.rows());
  const TensorView v = keys.v.Rows(first, keys.v.rows());
  const int64_t visible = end - first;
  Problem problem;
  problem.dtype = q.dtype();
  problem.q_heads = q.shape()[1];
  problem.kv_heads = keys.k.shape()[1];
  problem.head_dim = head_dim;
  problem.value_dim = out.shape()[2];
  problem.q_stride = q.row_stride();
  problem.k_stride = keys.k.row_stride();
  problem.v_stride = keys.v.row_stride();
  problem.out_stride = out.row_stride();
  problem.scale = options.scale;
  problem.window = windowed ? options.window : 0;
  constexpr int64_t kOneTile = 128;  // queries
  problem.most = PlanSize(end, state_->deterministic);
  problem.most_queries = state_->deterministic && q.rows() <= kOneTile ? kOneTile : problem.most;
  problem.sums = options.sinks.data() != nullptr;
  const int64_t elements = std::max({q.rows() * q.row_stride(), visible * keys.k.row_stride(),
                                     visible * keys.v.row_stride(), q.rows() * out.row_stride()});
  if (elements > INT32_MAX) return false;  // more than the offsets hold
  const Plan& plan = state_->PlanOf(problem);
  if (!plan.graph) return false;

  const auto integer = [](int64_t value) { return static_cast<int32_t>(value); };
  state_->WriteLengths({integer(q.rows()),
                        integer(visible),
                        {0, integer(q.rows() * q.row_stride())},
                        {0, integer(visible * keys.k.row_stride())},
                        {0, integer(visible * keys.v.row_stride())},
                        {0, integer(q.rows() * out.row_stride())}},
                       on);
  CheckCudnn(fe::detail::set_stream(state_->handle, on.stream), "cudnnSetStream");
  const auto length = [&](size_t i) { return state_->lengths.data() + i * sizeof(int32_t); };
  std::unordered_map<int64_t, void*> tensors = {
      {kQ, q.data()},     {kK, k.data()},      {kV, v.data()},      {kOut, out.data()},  {kQueries, length(0)},
      {kKeys, length(1)}, {kQEnds, length(2)}, {kKEnds, length(4)}, {kVEnds, length(6)}, {kOutEnds, length(8)}};
  if (!problem.sums) {
    CheckFrontend(plan.graph->execute(state_->handle, tensors, state_->workspace.data()), "attention");
    return true;
  }
  const TensorView sums = state_->RoomForSums(problem.q_heads, problem.most_queries);
  tensors.emplace(kSums, sums.data());
  CheckFrontend(plan.graph->execute(state_->handle, tensors, state_->workspace.data()), "attention");
  AddSinks(on, sums, options.sinks, out);
  return true;
}

}  // namespace runahead::cuda
