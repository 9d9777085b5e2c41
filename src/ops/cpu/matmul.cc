#include "ops/cpu/matmul.h"

#include <algorithm>
#include <dnnl.hpp>
#include <map>
#include <unordered_map>
#include <utility>

#include "ops/checks.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/few_rows.h"
#include "ops/cpu/linear.h"
#include "ops/cpu/onednn_compat.h"

namespace runahead::cpu {
namespace {

using dnnl::memory;

/// What distinguishes one matmul primitive from another.
struct Problem {
  int64_t rows = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;
  DType arithmetic = DType::kF32;
  DType destination = DType::kF32;
  bool bias = false;
  bool turned = false;  // y^T = W x^T, which reads rows of weights as they come

  friend auto operator<=>(const Problem&, const Problem&) = default;
};

struct Prepared {
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul primitive;
};

Prepared Create(const Problem& problem) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto describe = [&](const memory::desc& source, const memory::desc& weights, int64_t rows, int64_t columns) {
    const memory::desc bias = problem.bias ? RowMajor(1, columns, DType::kF32) : memory::desc();
    return DescribeMatmul(Engine(), source, weights, bias, RowMajor(rows, columns, problem.destination), attributes);
  };
  const auto [rows, in_features, out_features] = std::tuple(problem.rows, problem.in_features, problem.out_features);
  Prepared prepared;
  if (problem.turned) {
    const memory::desc turned_x({in_features, rows}, TypeOf(problem.arithmetic), memory::format_tag::ba);
    prepared.desc = describe(RowMajor(out_features, in_features, problem.arithmetic), turned_x, out_features, rows);
  } else {
    prepared.desc = describe(RowMajor(rows, in_features, problem.arithmetic),
                             PackedDesc(in_features, out_features, problem.arithmetic), rows, out_features);
  }
  prepared.primitive = dnnl::matmul(prepared.desc);
  return prepared;
}

}  // namespace

struct Multiplier::Cache {
  dnnl::stream stream{Engine()};
  std::map<Problem, Prepared> prepared;
  Scratch workspace;    // oneDNN's own
  Scratch source;       // activations in the arithmetic dtype
  Scratch destination;  // results before they are converted or spread over a wider row

  Prepared& Find(const Problem& problem) {
    constexpr size_t kMost = 256;
    const auto found = prepared.find(problem);
    if (found != prepared.end()) return found->second;
    if (prepared.size() >= kMost) prepared.clear();
    return prepared.emplace(problem, Create(problem)).first->second;
  }

  /// left * right + bias for contiguous operands of the problem's dtypes.
  void Execute(const Problem& problem, const void* left, const void* right, const float* bias, void* y) {
    const Prepared& matmul = Find(problem);
    const memory::desc workspace_desc = matmul.desc.scratchpad_desc();
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC, memory(matmul.desc.src_desc(), Engine(), const_cast<void*>(left))},
        {DNNL_ARG_WEIGHTS, memory(matmul.desc.weights_desc(), Engine(), const_cast<void*>(right))},
        {DNNL_ARG_DST, memory(matmul.desc.dst_desc(), Engine(), y)},
        {DNNL_ARG_SCRATCHPAD,
         memory(workspace_desc, Engine(), workspace.Get<std::byte>(workspace_desc.get_size() + 1))}};
    if (bias != nullptr) {
      arguments.emplace(DNNL_ARG_BIAS, memory(matmul.desc.bias_desc(), Engine(), const_cast<float*>(bias)));
    }
    matmul.primitive.execute(stream, arguments);
    stream.wait();
  }
};

std::unique_ptr<Linear> PrepareLinear(Device& device, const std::vector<LinearPart>& parts, DType compute) {
  CheckParts(parts);
  return std::make_unique<CpuLinear>(device, parts, compute);
}

Multiplier::Multiplier(const Team& team) : team_(team), cache_(std::make_unique<Cache>()) {}
Multiplier::~Multiplier() = default;

void Multiplier::Multiply(TensorView x, const Linear& any, int first, int count, TensorView y) {
  const auto& linear = static_cast<const CpuLinear&>(any);
  CheckMatmul(x, linear, linear.compute(), first, count, y);
  if (x.rows() == 0) return;
  team_.Enter();
  const size_t end = linear.PanelBegin(first + count);
  int64_t column = 0;
  for (size_t panel = linear.PanelBegin(first); panel < end;) {
    const size_t run = linear.Adjacent(panel, end);
    const Panel& last = linear.panel(panel + run - 1);
    Panel together = linear.panel(panel);
    together.rows = last.first_feature + last.rows - together.first_feature;
    MultiplyPanel(x, linear, together, y.Columns(column, column + together.rows));
    column += together.rows;
    panel += run;
  }
}

// Operands that are not in place or dtype pass through a block of rows that stays in the cache.
void Multiplier::MultiplyPanel(TensorView x, const CpuLinear& linear, const Panel& panel, TensorView y) {
  constexpr int64_t kBlock = 256;
  const DType arithmetic = linear.arithmetic();
  const int64_t in_features = linear.in_features();
  const float* bias = linear.bias(panel);
  const bool columns = TakesColumns(arithmetic);
  const bool turned = panel.in_place && columns && x.rows() > kFewRows;
  const bool direct_x = x.dtype() == arithmetic && x.contiguous();
  const bool direct_y = !turned && (y.dtype() == arithmetic || y.dtype() == DType::kF32) && y.contiguous();
  const bool exact = arithmetic == DType::kF32 || (turned && bias != nullptr);
  const DType result = exact ? DType::kF32 : y.dtype();
  const int64_t block = direct_x && direct_y ? x.rows() : std::min(x.rows(), kBlock);
  for (int64_t row = 0; row < x.rows(); row += block) {
    const int64_t n = std::min(block, x.rows() - row);
    TensorView from = x.Rows(row, row + n);
    if (!direct_x) {
      void* memory = cache_->source.Get<std::byte>(static_cast<size_t>(n * in_features) * SizeOf(arithmetic));
      const TensorView converted(memory, arithmetic, {n, in_features});
      ConvertRows(team_, from, converted);
      from = converted;
    }
    const TensorView target = y.Rows(row, row + n);
    void* data = target.data();
    if (!direct_y) {
      data = cache_->destination.Get<std::byte>(static_cast<size_t>(n * panel.rows) * SizeOf(result));
    }
    if (turned) {
      cache_->Execute({n, in_features, panel.rows, arithmetic, result, false, true}, panel.data, from.data(), nullptr,
                      data);
      TransposeRows(team_, TensorView(data, result, {panel.rows, n}), bias, target);
      continue;
    }
    if (n <= kFewRows && columns) {
      MultiplyFewRows(team_, {n, in_features, panel.rows, arithmetic, result, from.data(), panel.data, panel.in_place,
                              bias, data});
    } else {
      cache_->Execute({n, in_features, panel.rows, arithmetic, result, bias != nullptr, false}, from.data(),
                      panel.data, bias, data);
    }
    if (!direct_y) ConvertRows(team_, TensorView(data, result, {n, panel.rows}), target);
  }
}

}  // namespace runahead::cpu
