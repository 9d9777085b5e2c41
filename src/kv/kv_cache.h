// The keys and values of a sequence: what a prompt phase computes, and what ranks hand to each other.
#pragma once

#include <cstdint>

#include "tensor/device.h"
#include "tensor/tensor_view.h"

namespace runahead {

/// The shape of what one token adds to a cache.
struct KvShape {
  int layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  DType dtype = DType::kF32;

  /// Bytes of K and V of one token over all layers.
  [[nodiscard]] size_t BytesPerToken() const {
    return 2 * static_cast<size_t>(layers) * static_cast<size_t>(kv_heads * head_dim) * SizeOf(dtype);
  }
  friend bool operator==(const KvShape&, const KvShape&) = default;
};

/// Rows [begin, end) of one layer's K and V. Borrows the cache's memory; each of k and v is one contiguous slab.
struct KvSpan {
  int layer = 0;
  int64_t begin = 0;
  int64_t end = 0;
  TensorView k;  // [end - begin, kv_heads, head_dim]
  TensorView v;  // [end - begin, kv_heads, head_dim]

  [[nodiscard]] int64_t rows() const { return end - begin; }
  [[nodiscard]] size_t bytes() const { return k.bytes() + v.bytes(); }
};

/// Owns the memory [layer][K|V][token][kv_head][head_dim] on one device. Capacity is fixed at creation. Rows are
/// written once per sequence; writers of different rows need no lock.
class KvCache {
 public:
  /// Room for `capacity` tokens. Throws ConfigError naming the size when the device has no room for it.
  KvCache(Device& device, const KvShape& shape, int64_t capacity);

  [[nodiscard]] const KvShape& shape() const { return shape_; }
  [[nodiscard]] int64_t capacity() const { return capacity_; }

  /// Rows [begin, end) of `layer`, with 0 <= begin <= end <= capacity.
  [[nodiscard]] KvSpan Span(int layer, int64_t begin, int64_t end) const;

 private:
  KvShape shape_;
  int64_t capacity_;
  Buffer memory_;
};

}  // namespace runahead
