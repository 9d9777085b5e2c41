// The keys and values of sequences: what a prompt phase computes, and what ranks hand to each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kv/kv_pages.h"
#include "tensor/device.h"
#include "tensor/tensor_view.h"

namespace runahead {

/// The shape of what one token adds to a cache.
struct KvShape {
  int layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  DType dtype = DType::kF32;
  int64_t value_dim = 0;  // features of a head of V; 0: head_dim

  [[nodiscard]] int64_t value_features() const { return value_dim > 0 ? value_dim : head_dim; }
  /// Bytes of K and V of one token over all layers.
  [[nodiscard]] size_t BytesPerToken() const {
    return static_cast<size_t>(layers) * static_cast<size_t>(kv_heads * (head_dim + value_features())) *
           SizeOf(dtype);
  }
  friend bool operator==(const KvShape&, const KvShape&) = default;
};

/// Rows [begin, end) of one layer's K and V. Borrows the cache's memory; each of k and v is one contiguous slab.
struct KvSpan {
  int layer = 0;
  int64_t begin = 0;
  int64_t end = 0;
  TensorView k;  // [end - begin, kv_heads, head_dim]
  TensorView v;  // [end - begin, kv_heads, value_dim]

  [[nodiscard]] int64_t rows() const { return end - begin; }
  [[nodiscard]] size_t bytes() const { return k.bytes() + v.bytes(); }
};

/// Positions [0, rows) of one sequence in one layer, as attention reads them. Borrows the cache's memory.
struct KvRows {
  KvRows() = default;
  /// Rows that follow each other, from position 0 on.
  KvRows(const KvSpan& span) : k(span.k), v(span.v), rows(span.rows()), pages(span.rows()) {
    CHECK_EQ(span.begin, 0);
  }  // NOLINT
  KvRows(TensorView keys, TensorView values, int64_t count, PageTable on)
      : k(keys), v(values), rows(count), pages(on) {}

  /// Row of k and v where `position` lies.
  [[nodiscard]] int64_t RowOf(int64_t position) const { return pages.RowOf(position); }

  TensorView k;  // [any, kv_heads, head_dim]: position p lies at row RowOf(p)
  TensorView v;  // [any, kv_heads, value_dim]
  int64_t rows = 0;
  PageTable pages;
};

/// Owns the memory [layer][K|V][row][kv_head][feature] on one device: of one sequence, or of many on pages of
/// kPageRows rows. Capacity is fixed at creation. Rows are written once per sequence; writers of different rows need
/// no lock.
class KvCache {
 public:
  /// Room for `capacity` tokens. Throws ConfigError naming the size when the device has no room for it.
  KvCache(Device& device, const KvShape& shape, int64_t capacity);

  [[nodiscard]] const KvShape& shape() const { return shape_; }
  [[nodiscard]] int64_t capacity() const { return capacity_; }
  /// All of it, on the device.
  [[nodiscard]] std::span<std::byte> memory() const { return {memory_.data(), memory_.bytes()}; }

  /// Rows [begin, end) of `layer`, with 0 <= begin <= end <= capacity.
  [[nodiscard]] KvSpan Span(int layer, int64_t begin, int64_t end) const;

 private:
  KvShape shape_;
  int64_t capacity_;
  Buffer memory_;
};

/// One sequence in a cache. Borrows the cache and the list of pages.
class KvView {
 public:
  KvView() = default;
  /// The sequence that has `cache` to itself.
  KvView(const KvCache& cache) : cache_(&cache), pages_(cache.capacity()) {}  // NOLINT: a cache is a view of itself
  KvView(const KvCache& cache, PageTable pages) : cache_(&cache), pages_(pages) {}

  [[nodiscard]] const KvShape& shape() const { return cache_->shape(); }
  [[nodiscard]] int64_t capacity() const { return pages_.capacity(); }
  [[nodiscard]] const PageTable& pages() const { return pages_; }

  /// Positions [begin, end) of `layer`, whose rows must follow each other (PageTable::StraightEnd).
  [[nodiscard]] KvSpan Span(int layer, int64_t begin, int64_t end) const;
  /// Positions [0, rows) of `layer`.
  [[nodiscard]] KvRows Rows(int layer, int64_t rows) const;

 private:
  const KvCache* cache_ = nullptr;
  PageTable pages_;
};

}  // namespace runahead
