#include "kv/kv_cache.h"

namespace runahead {

KvCache::KvCache(Device& device, const KvShape& shape, int64_t capacity)
    : shape_(shape),
      capacity_(capacity),
      memory_(device.Allocate(shape.BytesPerToken() * static_cast<size_t>(capacity))) {}

KvSpan KvCache::Span(int layer, int64_t begin, int64_t end) const {
  CHECK(0 <= layer && layer < shape_.layers);
  CHECK(0 <= begin && begin <= end && end <= capacity_);
  const Shape key_slab{capacity_, shape_.kv_heads, shape_.head_dim};
  const Shape value_slab{capacity_, shape_.kv_heads, shape_.value_features()};
  const auto bytes = [&](const Shape& slab) { return static_cast<size_t>(slab.elements()) * SizeOf(shape_.dtype); };
  std::byte* keys = memory_.data() + static_cast<size_t>(layer) * (bytes(key_slab) + bytes(value_slab));
  const TensorView k(keys, shape_.dtype, key_slab);
  const TensorView v(keys + bytes(key_slab), shape_.dtype, value_slab);
  return {layer, begin, end, k.Rows(begin, end), v.Rows(begin, end)};
}

KvSpan KvView::Span(int layer, int64_t begin, int64_t end) const {
  if (begin == end) return {layer, begin, end, cache_->Span(layer, 0, 0).k, cache_->Span(layer, 0, 0).v};
  CHECK_EQ(pages_.StraightEnd(begin, end), end);
  const int64_t row = pages_.RowOf(begin);
  const KvSpan rows = cache_->Span(layer, row, row + end - begin);
  return {layer, begin, end, rows.k, rows.v};
}

KvRows KvView::Rows(int layer, int64_t rows) const {
  CHECK(0 <= rows && rows <= pages_.capacity());
  const int64_t first = pages_.straight() ? pages_.first_row() : 0;
  const KvSpan all = cache_->Span(layer, first, pages_.straight() ? first + rows : cache_->capacity());
  return {all.k, all.v, rows, pages_.straight() ? PageTable(rows) : pages_};
}

}  // namespace runahead
