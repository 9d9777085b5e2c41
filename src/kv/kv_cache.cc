#include "kv/kv_cache.h"

namespace runahead {

KvCache::KvCache(Device& device, const KvShape& shape, int64_t capacity)
    : shape_(shape),
      capacity_(capacity),
      memory_(device.Allocate(shape.BytesPerToken() * static_cast<size_t>(capacity))) {}

KvSpan KvCache::Span(int layer, int64_t begin, int64_t end) const {
  CHECK(0 <= layer && layer < shape_.layers);
  CHECK(0 <= begin && begin <= end && end <= capacity_);
  const Shape slab{capacity_, shape_.kv_heads, shape_.head_dim};
  const size_t slab_bytes = static_cast<size_t>(slab.elements()) * SizeOf(shape_.dtype);
  std::byte* keys = memory_.data() + 2 * static_cast<size_t>(layer) * slab_bytes;
  const TensorView k(keys, shape_.dtype, slab);
  const TensorView v(keys + slab_bytes, shape_.dtype, slab);
  return {layer, begin, end, k.Rows(begin, end), v.Rows(begin, end)};
}

}  // namespace runahead
