// Steps of many sequences on a GPU: where their rows and pages lie, in its memory.
#pragma once

#include <driver_types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ops/cuda/attention_many.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/staging.h"
#include "ops/ops.h"

namespace runahead::cuda {

/// Integers that kernels read in device memory. They are copied there when they differ from those before: all layers
/// of a pass have the same. Used by one thread at a time.
class DeviceTable {
 public:
  DeviceTable(Device& device, int ordinal);

  /// Enqueues the copy, if any, on `stream`. Valid for what `stream` does before the next call with other values.
  const int32_t* Send(std::span<const int32_t> values, cudaStream_t stream);

 private:
  Device& device_;
  int ordinal_;
  std::unique_ptr<PinnedBuffer> host_;
  size_t host_bytes_ = 0;
  Buffer memory_;
  Event copied_;
  std::vector<int32_t> values_;  // contents of the device's memory for the work that comes
  cudaStream_t stream_ = nullptr;
};

/// Enqueues the operations of many sequences as one launch each. Used by one thread at a time.
class Sequences {
 public:
  Sequences(Device& device, int ordinal);

  /// Ops::PrepareHeadsOfMany in a constant number of launches; or returns false, having done nothing, where the
  /// pieces do not share steps or a cache.
  bool PrepareHeads(std::span<const HeadRows> pieces, const LaunchOn& on);

  /// Ops::PrepareQueriesOfMany; or returns false, having done nothing, where the rows do not share their steps.
  bool PrepareQueries(TensorView q, std::span<const QueryRow> rows, const LaunchOn& on);

  /// Ops::KeepRows of rows that do not follow each other.
  void KeepRows(TensorView x, std::span<const int64_t> rows, const LaunchOn& on);

  /// Ops::AttentionOfMany of single queries; or returns false, having done nothing, where they do not share options
  /// or a cache. The rows of a sequence before its last `unsettled` ones are there whatever kernels still run.
  bool Attend(std::span<const AttentionTask* const> tasks, int64_t unsettled, const LaunchOn& on);

 private:
  void AddUnits(const AttentionTask& task, int64_t row, int64_t first_row, int64_t unsettled, int64_t most_keys);
  [[nodiscard]] ManyTables Tables(const ManyShape& shape, const LaunchOn& on);

  Device& device_;
  int ordinal_;
  DeviceTable places_;   // position and row of the cache of each row
  DeviceTable queries_;  // the same of the last layer's queries
  DeviceTable kept_;
  DeviceTable units_;
  DeviceTable pages_;
  Buffer partial_;
  Buffer counters_;
  // Of the call under way; kept for their memory.
  std::vector<int32_t> row_places_;
  std::vector<int32_t> unit_words_;
  std::vector<int32_t> page_rows_;
};

}  // namespace runahead::cuda
