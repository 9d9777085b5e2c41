// Where oneDNN has blocked kernels, packed weights live in the layout that these read best: columns of 64 output
// features, outermost, each with all its input features. A column is contiguous, so parts of whole columns lie side
// by side and multiply as one matrix or alone.
#include "ops/cpu/matmul.h"

#include <algorithm>
#include <cstring>
#include <dnnl.hpp>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

#include "ops/cpu/checks.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/few_rows.h"
#include "ops/cpu/onednn_compat.h"
#include "runahead/error.h"

namespace runahead::cpu {
namespace {

using dnnl::memory;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory::data_type TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return memory::data_type::f32;
    case DType::kBF16:
      return memory::data_type::bf16;
    case DType::kF16:
      return memory::data_type::f16;
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown dtype");
}

memory::desc RowMajor(int64_t rows, int64_t columns, DType dtype) {
  return {{rows, columns}, TypeOf(dtype), memory::format_tag::ab};
}

memory::format_tag ColumnTag(DType arithmetic) {
  return arithmetic == DType::kBF16 ? memory::format_tag::BA16a64b2a : memory::format_tag::BA16a64b;
}

/// Whether the library has fast kernels for weights in columns: oneDNN has, from AVX-512 on.
bool TakesColumns(DType arithmetic) {
  const auto probe = [](DType dtype) {
    try {
      const memory::desc square = RowMajor(64, 64, dtype);
      const dnnl::matmul::primitive_desc desc =
          DescribeMatmul(Engine(), square, {{64, 64}, TypeOf(dtype), ColumnTag(dtype)}, memory::desc(), square, {});
      return std::string_view(desc.impl_info_str()).find("ref") == std::string_view::npos;
    } catch (const dnnl::error&) {
      return false;
    }
  };
  static const bool bf16 = CpuHasNativeBf16() && probe(DType::kBF16);
  static const bool f32 = probe(DType::kF32);
  return arithmetic == DType::kBF16 ? bf16 : f32;
}

/// What matrices are multiplied in: bf16 where the processor does so natively, f32 for all else.
DType ArithmeticOf(DType compute) {
  return compute == DType::kBF16 && TakesColumns(DType::kBF16) ? DType::kBF16 : DType::kF32;
}

/// Columns, or rows of weights as they come, [out_features, in_features].
memory::desc PackedDesc(int64_t in_features, int64_t rows, DType arithmetic) {
  return {{in_features, rows},
          TypeOf(arithmetic),
          TakesColumns(arithmetic) ? ColumnTag(arithmetic) : memory::format_tag::ba};
}

class PackedLinear final : public Linear {
 public:
  PackedLinear(Device& device, const std::vector<LinearPart>& parts, DType compute)
      : in_features_(parts.front().weights.front().row_elements()),
        compute_(compute),
        arithmetic_(ArithmeticOf(compute)) {
    size_t bytes = 0;
    int64_t features = 0;
    for (const LinearPart& part : parts) {
      Placement placement;
      for (const TensorView& matrix : part.weights) placement.rows += matrix.rows();
      placement.offset = bytes;
      placement.first_feature = features;
      has_bias_ = has_bias_ || !part.biases.empty();
      bytes += PackedDesc(in_features_, placement.rows, arithmetic_).get_size();
      features += placement.rows;
      parts_.push_back(placement);
    }
    weights_ = device.Allocate(bytes);
    if (has_bias_) biases_.assign(static_cast<size_t>(features), 0.0f);
    for (size_t i = 0; i < parts.size(); ++i) Pack(parts[i], parts_[i]);
  }

  [[nodiscard]] int64_t in_features() const override { return in_features_; }
  [[nodiscard]] int parts() const override { return static_cast<int>(parts_.size()); }
  [[nodiscard]] int64_t out_features(int first, int count) const override {
    int64_t sum = 0;
    for (int i = first; i < first + count; ++i) sum += parts_[static_cast<size_t>(i)].rows;
    return sum;
  }

  [[nodiscard]] DType compute() const { return compute_; }
  [[nodiscard]] DType arithmetic() const { return arithmetic_; }
  [[nodiscard]] bool has_bias() const { return has_bias_; }
  [[nodiscard]] std::byte* weights(int part) const {
    return weights_.data() + parts_[static_cast<size_t>(part)].offset;
  }
  /// [rows of the part and those after it], or null.
  [[nodiscard]] const float* bias(int part) const {
    return has_bias_ ? biases_.data() + parts_[static_cast<size_t>(part)].first_feature : nullptr;
  }
  /// How many parts from `first`, at most `count`, follow each other without padding: they multiply as one matrix.
  [[nodiscard]] int Adjacent(int first, int count) const {
    int run = 1;
    const int64_t whole = TakesColumns(arithmetic_) ? kColumnFeatures : 1;
    while (run < count && parts_[static_cast<size_t>(first + run - 1)].rows % whole == 0) ++run;
    return run;
  }

 private:
  struct Placement {
    int64_t rows = 0;
    size_t offset = 0;  // bytes into weights_
    int64_t first_feature = 0;
  };

  void Pack(const LinearPart& part, const Placement& placement) {
    TensorView source = part.weights.front();
    std::vector<std::byte> stacked;
    // Weights of another dtype are rounded to the compute dtype first, whatever the arithmetic: a model means the
    // same on every device.
    if (part.weights.size() > 1 || source.dtype() != arithmetic_ || compute_ != arithmetic_ || !source.contiguous()) {
      const Team one(1);
      const size_t elements = static_cast<size_t>(placement.rows * in_features_);
      std::vector<std::byte> rounded(compute_ != arithmetic_ ? elements * SizeOf(compute_) : 0);
      stacked.resize(elements * SizeOf(arithmetic_));
      const TensorView all(stacked.data(), arithmetic_, {placement.rows, in_features_});
      int64_t row = 0;
      for (const TensorView& matrix : part.weights) {
        const TensorView to = all.Rows(row, row + matrix.rows());
        if (compute_ != arithmetic_ && matrix.dtype() != compute_) {
          const TensorView middle(rounded.data(), compute_, matrix.shape());
          ConvertRows(one, matrix, middle);
          ConvertRows(one, middle, to);
        } else {
          ConvertRows(one, matrix, to);
        }
        row += matrix.rows();
      }
      source = all;
    }
    for (size_t i = 0, feature = static_cast<size_t>(placement.first_feature); i < part.biases.size(); ++i) {
      const TensorView& bias = part.biases[i];
      const int64_t n = bias.shape().elements();
      ConvertRows(Team(1), TensorView(bias.data(), bias.dtype(), {1, n}),
                  TensorView(biases_.data() + feature, DType::kF32, {1, n}));
      feature += static_cast<size_t>(n);
    }

    const memory::desc plain({in_features_, placement.rows}, TypeOf(arithmetic_), memory::format_tag::ba);
    const memory from(plain, Engine(), source.data());
    const memory to(PackedDesc(in_features_, placement.rows, arithmetic_), Engine(),
                    weights_.data() + placement.offset);
    dnnl::stream stream(Engine());
    dnnl::reorder(from, to).execute(stream, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
    stream.wait();
  }

  int64_t in_features_;
  DType compute_;
  DType arithmetic_;
  bool has_bias_ = false;
  std::vector<Placement> parts_;
  Buffer weights_;
  std::vector<float> biases_;  // [all features], or empty
};

/// What distinguishes one matmul primitive from another.
struct Problem {
  int64_t rows = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;
  DType arithmetic = DType::kF32;
  DType destination = DType::kF32;
  bool bias = false;

  friend auto operator<=>(const Problem&, const Problem&) = default;
};

struct Prepared {
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul primitive;
};

Prepared Create(const Problem& problem) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const memory::desc bias = problem.bias ? RowMajor(1, problem.out_features, DType::kF32) : memory::desc();
  Prepared prepared;
  prepared.desc = DescribeMatmul(Engine(), RowMajor(problem.rows, problem.in_features, problem.arithmetic),
                                 PackedDesc(problem.in_features, problem.out_features, problem.arithmetic), bias,
                                 RowMajor(problem.rows, problem.out_features, problem.destination), attributes);
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

  /// y = x W^T + b for contiguous x and y of the problem's dtypes.
  void Execute(const Problem& problem, void* x, void* weights, const float* bias, void* y) {
    const Prepared& matmul = Find(problem);
    const memory::desc workspace_desc = matmul.desc.scratchpad_desc();
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC, memory(matmul.desc.src_desc(), Engine(), x)},
        {DNNL_ARG_WEIGHTS, memory(matmul.desc.weights_desc(), Engine(), weights)},
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

std::unique_ptr<Linear> PackLinear(Device& device, const std::vector<LinearPart>& parts, DType compute) {
  CheckParts(parts);
  return std::make_unique<PackedLinear>(device, parts, compute);
}

Multiplier::Multiplier(const Team& team) : team_(team), cache_(std::make_unique<Cache>()) {}
Multiplier::~Multiplier() = default;

void Multiplier::Multiply(TensorView x, const Linear& linear, int first, int count, TensorView y) {
  const auto& packed = static_cast<const PackedLinear&>(linear);
  CheckMatmul(x, linear, packed.compute(), first, count, y);
  if (x.rows() == 0) return;
  team_.Enter();
  const DType arithmetic = packed.arithmetic();
  const int64_t in_features = linear.in_features();

  for (int64_t column = 0; count > 0;) {
    const int run = packed.Adjacent(first, count);
    const int64_t features = linear.out_features(first, run);
    const TensorView slice = y.Columns(column, column + features);
    // Results that cannot go straight to their place pass through a block of rows that stays in the cache.
    const bool direct_x = x.dtype() == arithmetic && x.contiguous();
    const bool direct_y = (y.dtype() == arithmetic || y.dtype() == DType::kF32) && slice.contiguous();
    const DType result = arithmetic == DType::kF32 ? DType::kF32 : y.dtype();
    constexpr int64_t kBlock = 256;
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
      TensorView to = slice.Rows(row, row + n);
      if (!direct_y) {
        void* memory = cache_->destination.Get<std::byte>(static_cast<size_t>(n * features) * SizeOf(result));
        to = TensorView(memory, result, {n, features});
      }
      if (n <= kFewRows && TakesColumns(arithmetic)) {
        MultiplyFewRows(team_, {n, in_features, features, arithmetic, result, from.data(), packed.weights(first),
                                packed.bias(first), to.data()});
      } else {
        cache_->Execute({n, in_features, features, arithmetic, result, packed.has_bias()}, from.data(),
                        packed.weights(first), packed.bias(first), to.data());
      }
      if (!direct_y) ConvertRows(team_, to, slice.Rows(row, row + n));
    }
    column += features;
    first += run;
    count -= run;
  }
}

}  // namespace runahead::cpu
