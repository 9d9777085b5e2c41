#include "ops/cuda/sequences.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <optional>

#include "tensor/cuda_check.h"

namespace runahead::cuda {
namespace {

constexpr int64_t kUnitWords = sizeof(ManyUnit) / sizeof(int32_t);

/// Rows from where `base` begins to where `view` does; nothing where they are not rows of one tensor, or too many.
std::optional<int64_t> RowsBetween(const TensorView& base, const TensorView& view) {
  const auto bytes = static_cast<const std::byte*>(view.data()) - static_cast<const std::byte*>(base.data());
  const auto row_bytes = static_cast<int64_t>(base.row_stride()) * static_cast<int64_t>(SizeOf(base.dtype()));
  if (bytes % row_bytes != 0) return std::nullopt;
  const int64_t rows = bytes / row_bytes;
  if (rows < INT32_MIN / 2 || rows > INT32_MAX / 2) return std::nullopt;
  return rows;
}

bool SameSteps(const HeadSteps& a, const HeadSteps& b) { return a.norm == b.norm && a.rope == b.rope; }

bool SameOptions(const AttentionOptions& a, const AttentionOptions& b) {
  return a.scale == b.scale && a.window == b.window && a.softcap == b.softcap &&
         a.key_bias.data() == b.key_bias.data() && a.sinks.data() == b.sinks.data() && a.causal == b.causal;
}

/// The first key that the task's one query sees.
int64_t FirstKey(const AttentionTask& task) {
  const int64_t window = task.options.window;
  return window > 0 ? std::max<int64_t>(0, task.position + 1 - window) : 0;
}

/// Keys of a block so that those of sequences of `keys` keys end soonest: blocks come in waves as large as the GPU
/// has places for, and each costs some time beside that of its keys.
int64_t KeysOfABlock(const std::vector<int64_t>& keys, const ManyShape& shape, int multiprocessors) {
  constexpr int64_t kFewest = 256;  // keys worth a block
  constexpr int64_t kBeside = 64;   // keys that take as long as what a block does beside reading
  constexpr int64_t kMostParts = 64;
  const int64_t longest = *std::max_element(keys.begin(), keys.end());
  const int64_t places = int64_t{shape.blocks_per_multiprocessor} * multiprocessors;
  int64_t best = 0;
  int64_t least = INT64_MAX;
  for (int64_t parts = 1; parts <= kMostParts; ++parts) {
    const int64_t each = std::max(kFewest, PagesOf((longest + parts - 1) / parts) * kPageRows);
    int64_t blocks = 0;
    for (const int64_t own : keys) blocks += (own + each - 1) / each * shape.sets;
    const int64_t waves = (blocks + places - 1) / places;
    const int64_t cost = waves * (std::min(each, longest) + kBeside);
    if (cost < least) {
      least = cost;
      best = each;
    }
    if (each == kFewest) break;
  }
  return best;
}

}  // namespace

DeviceTable::DeviceTable(Device& device, int ordinal) : device_(device), ordinal_(ordinal), copied_(ordinal) {}

const int32_t* DeviceTable::Send(std::span<const int32_t> values, cudaStream_t stream) {
  const auto* const there = reinterpret_cast<const int32_t*>(memory_.data());
  if (there != nullptr && stream == stream_ &&
      std::equal(values.begin(), values.end(), values_.begin(), values_.end()))
    return there;
  const size_t bytes = std::max<size_t>(values.size_bytes(), 4096);
  copied_.Synchronize();  // copy of the call before, long done
  if (host_bytes_ < bytes) {
    host_bytes_ = 2 * bytes;
    host_ = std::make_unique<PinnedBuffer>(ordinal_, host_bytes_);
    memory_ = device_.Allocate(host_bytes_);
  }
  std::memcpy(host_->data(), values.data(), values.size_bytes());
  CheckCuda(cudaMemcpyAsync(memory_.data(), host_->data(), values.size_bytes(), cudaMemcpyHostToDevice, stream),
            ordinal_, "cudaMemcpyAsync");
  copied_.Record(stream);
  values_.assign(values.begin(), values.end());
  stream_ = stream;
  return reinterpret_cast<const int32_t*>(memory_.data());
}

Sequences::Sequences(Device& device, int ordinal)
    : device_(device),
      ordinal_(ordinal),
      places_(device, ordinal),
      queries_(device, ordinal),
      kept_(device, ordinal),
      units_(device, ordinal),
      pages_(device, ordinal) {}

bool Sequences::PrepareHeads(std::span<const HeadRows> pieces, const LaunchOn& on) {
  const HeadRows& first = pieces.front();
  row_places_.clear();
  for (const HeadRows& piece : pieces) {
    const std::optional<int64_t> k_row = RowsBetween(first.rows.k, piece.rows.k);
    const std::optional<int64_t> v_row = RowsBetween(first.rows.v, piece.rows.v);
    if (!k_row || k_row != v_row || !SameSteps(piece.query_steps, first.query_steps) ||
        !SameSteps(piece.key_steps, first.key_steps)) {
      return false;
    }
    for (int64_t i = 0; i < piece.rows.rows(); ++i) {
      row_places_.push_back(static_cast<int32_t>(piece.rows.begin + i));
      row_places_.push_back(static_cast<int32_t>(*k_row + i));
    }
  }
  const auto rows = std::ssize(row_places_) / 2;
  const auto joined = [&](const TensorView& view) {
    return view.data() == nullptr
               ? view
               : TensorView(view.data(), view.dtype(), {rows, view.shape()[1], view.shape()[2]}, view.row_stride());
  };
  HeadRows all = first;
  all.q = joined(first.q);
  all.k = joined(first.k);
  all.v = joined(first.v);
  const auto* const places = reinterpret_cast<const RowPlace*>(places_.Send(row_places_, on.stream));
  cuda::PrepareHeads(on, all, places);
  return true;
}

bool Sequences::PrepareQueries(TensorView q, std::span<const QueryRow> rows, const LaunchOn& on) {
  row_places_.clear();
  for (const QueryRow& row : rows) {
    if (!SameSteps(row.steps, rows.front().steps)) return false;
    row_places_.push_back(static_cast<int32_t>(row.position));
    row_places_.push_back(0);
  }
  const auto* const places = reinterpret_cast<const RowPlace*>(queries_.Send(row_places_, on.stream));
  cuda::PrepareQueries(on, q, rows.front().steps, 0, places);
  return true;
}

void Sequences::KeepRows(TensorView x, std::span<const int64_t> rows, const LaunchOn& on) {
  row_places_.assign(rows.begin(), rows.end());
  cuda::KeepRows(on, x, kept_.Send(row_places_, on.stream), std::ssize(rows));
}

void Sequences::AddUnits(const AttentionTask& task, int64_t row, int64_t first_row, int64_t unsettled,
                         int64_t most_keys) {
  const int64_t begin = FirstKey(task);
  const int64_t end = task.position + 1;
  const auto pages = static_cast<int32_t>(page_rows_.size());
  for (int64_t position = 0; position < end; position += kPageRows) {
    // Pages before the window may be anybody's.
    page_rows_.push_back(position + kPageRows <= begin ? 0
                                                       : static_cast<int32_t>(first_row + task.keys.RowOf(position)));
  }
  const int64_t aligned = begin / kPageRows * kPageRows;
  const int64_t wanted = (end - aligned + most_keys - 1) / most_keys;
  const int64_t per_split = PagesOf((end - aligned + wanted - 1) / wanted) * kPageRows;
  const int64_t splits = (end - aligned + per_split - 1) / per_split;
  const auto first_unit = static_cast<int32_t>(std::ssize(unit_words_) / kUnitWords);
  for (int64_t split = 0; split < splits; ++split) {
    const int64_t from = aligned + split * per_split;
    const ManyUnit unit{static_cast<int32_t>(row),
                        static_cast<int32_t>(task.position),
                        static_cast<int32_t>(std::max(from, begin)),
                        static_cast<int32_t>(std::min(from + per_split, end)),
                        static_cast<int32_t>(std::max<int64_t>(0, task.position - unsettled)),
                        pages,
                        first_unit,
                        static_cast<int32_t>(splits)};
    int32_t words[kUnitWords];
    std::memcpy(words, &unit, sizeof(unit));
    unit_words_.insert(unit_words_.end(), words, words + kUnitWords);
  }
}

ManyTables Sequences::Tables(const ManyShape& shape, const LaunchOn& on) {
  ManyTables tables;
  tables.count = std::ssize(unit_words_) / kUnitWords;
  const auto blocks = static_cast<size_t>(tables.count * shape.sets);
  const size_t partial_bytes = blocks * static_cast<size_t>(shape.part_floats) * sizeof(float);
  if (partial_.bytes() < partial_bytes) {
    partial_ = Buffer();
    partial_ = device_.Allocate(2 * partial_bytes);
  }
  if (counters_.bytes() < blocks * sizeof(unsigned)) {
    counters_ = Buffer();
    counters_ = device_.Allocate(2 * blocks * sizeof(unsigned));
    CheckCuda(cudaMemsetAsync(counters_.data(), 0, counters_.bytes(), on.stream), ordinal_, "cudaMemsetAsync");
  }
  tables.units = reinterpret_cast<const ManyUnit*>(units_.Send(unit_words_, on.stream));
  tables.rows = pages_.Send(page_rows_, on.stream);
  tables.partial = reinterpret_cast<float*>(partial_.data());
  tables.counters = reinterpret_cast<unsigned*>(counters_.data());
  return tables;
}

bool Sequences::Attend(std::span<const AttentionTask* const> tasks, int64_t unsettled, const LaunchOn& on) {
  constexpr int64_t kMostUnits = 65535;  // blocks of a grid's second dimension
  const AttentionTask& first = *tasks.front();
  const ManyQueries many{first.q, first.out, first.keys.k, first.keys.v, first.options};
  const ManyShape shape = ShapeOfMany(many);
  std::vector<int64_t> keys;
  for (const AttentionTask* task : tasks) {
    if (!SameOptions(task->options, first.options)) return false;
    keys.push_back(task->position + 1 - FirstKey(*task) / kPageRows * kPageRows);
  }
  const int64_t most_keys = KeysOfABlock(keys, shape, on.multiprocessors);
  unit_words_.clear();
  page_rows_.clear();
  for (const AttentionTask* task : tasks) {
    const std::optional<int64_t> q_row = RowsBetween(many.q, task->q);
    const std::optional<int64_t> out_row = RowsBetween(many.out, task->out);
    const std::optional<int64_t> k_row = RowsBetween(many.k, task->keys.k);
    const std::optional<int64_t> v_row = RowsBetween(many.v, task->keys.v);
    if (!q_row || !k_row || q_row != out_row || k_row != v_row) return false;
    AddUnits(*task, *q_row, *k_row, unsettled, most_keys);
  }
  if (std::ssize(unit_words_) / kUnitWords > kMostUnits) return false;
  AttendMany(on, many, shape, Tables(shape, on));
  return true;
}

}  // namespace runahead::cuda
