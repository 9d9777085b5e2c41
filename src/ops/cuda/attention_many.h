// Attention of one query each of many sequences: the tables that its kernels read, and their launcher.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels.h"

namespace runahead::cuda {

/// The part of one sequence's keys that a block reads. The parts of a sequence are neighbours in the table.
struct alignas(16) ManyUnit {
  int32_t row;       // row of q and out
  int32_t position;  // position of the query
  int32_t begin;     // keys [begin, end) of the sequence, all visible
  int32_t end;
  int32_t settled;  // keys that are there whatever kernels still run when a block becomes resident
  int32_t pages;    // index of the sequence's first page in ManyTables::rows
  int32_t first;    // index of the sequence's first unit
  int32_t splits;   // units of the sequence
};
static_assert(sizeof(ManyUnit) == 32);

/// All in device memory.
struct ManyTables {
  const ManyUnit* units = nullptr;  // [count]
  const int32_t* rows = nullptr;    // row of k and v where each page begins
  int64_t count = 0;
  float* partial = nullptr;      // [count, sets, part_floats]
  unsigned* counters = nullptr;  // [count, sets], zero between calls
};

/// Queries of any rows of q. What all of them share.
struct ManyQueries {
  TensorView q;    // [rows, q_heads, head_dim]
  TensorView out;  // [rows, q_heads, head_dim]
  TensorView k;    // [any, kv_heads, head_dim]
  TensorView v;    // [any, kv_heads, head_dim]
  AttentionOptions options;
};

/// How a launch is cut.
struct ManyShape {
  bool on_tiles = false;      // on the tensor cores
  int64_t heads_per_set = 1;  // query heads that share a block
  int64_t sets = 1;           // sets of heads of all kv heads: blocks of a unit
  int64_t part_floats = 0;    // floats that a block leaves for the one that joins
  int blocks_per_multiprocessor = 1;
};
ManyShape ShapeOfMany(const ManyQueries& many);

/// Attention of one query of each sequence of `tables`, in one launch.
void AttendMany(const LaunchOn& on, const ManyQueries& many, const ManyShape& shape, const ManyTables& tables);

}  // namespace runahead::cuda
