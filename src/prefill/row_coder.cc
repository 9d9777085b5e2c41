#include "prefill/row_coder.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace runahead {
namespace {

/// The part of `bytes`, encoded rows from position `begin` on, that is positions [from, to).
std::span<std::byte> Part(const RowCodec& codec, std::span<std::byte> bytes, int64_t begin, int64_t from,
                          int64_t to) {
  return bytes.subspan(codec.Bytes(begin, from), codec.Bytes(from, to));
}

/// Calls visit(begin, end) for rows of [begin, end) that follow each other in a cache.
template <typename Visit>
void ForStraightRows(const PageTable& pages, int64_t begin, int64_t end, const Visit& visit) {
  while (begin < end) {
    const int64_t straight = pages.StraightEnd(begin, end);
    visit(begin, straight);
    begin = straight;
  }
}

}  // namespace

KvSpan EncodedRows::Span() const {
  const auto view = [](std::span<std::byte> of) {
    return TensorView(of.data(), DType::kBF16, {static_cast<int64_t>(of.size() / SizeOf(DType::kBF16))});
  };
  return {layer, begin, end, view(keys()), view(values())};
}

RowCoder::RowCoder(const KvView& cache, int threads) : cache_(cache), team_(threads) {
  const KvShape& shape = cache.shape();
  for (const WireFormat format : {WireFormat::kExact, WireFormat::kInt8, WireFormat::kFp8, WireFormat::kInt4}) {
    codecs_.push_back({{format, RowKind::kKeys, shape.kv_heads, shape.head_dim, shape.dtype},
                       {format, RowKind::kValues, shape.kv_heads, shape.value_features(), shape.dtype}});
  }
}

std::shared_ptr<EncodedRows> RowCoder::Room(WireFormat format, int layer, int64_t begin, int64_t end) {
  auto rows = std::make_shared<EncodedRows>();
  rows->format = format;
  rows->layer = layer;
  rows->begin = begin;
  rows->end = end;
  rows->key_bytes = Of(format).keys.Bytes(begin, end);
  rows->value_bytes = Of(format).values.Bytes(begin, end);
  rows->bytes.reset(new std::byte[rows->key_bytes + rows->value_bytes]);  // not zeroed
  return rows;
}

int64_t RowCoder::CopyKnown(int64_t at, const EncodedRows& to) const {
  for (const auto& known : known_) {
    if (known->format != to.format || known->layer != to.layer || at < known->begin || at >= known->end) continue;
    const int64_t end = std::min(known->end, to.end);
    const Codecs& codecs = Of(to.format);
    const auto copy = [&](const RowCodec& codec, std::span<std::byte> target, std::span<std::byte> source) {
      const std::span<std::byte> from = Part(codec, source, known->begin, at, end);
      std::memcpy(Part(codec, target, to.begin, at, end).data(), from.data(), from.size());
    };
    copy(codecs.keys, to.keys(), known->keys());
    copy(codecs.values, to.values(), known->values());
    return end;
  }
  return at;
}

int64_t RowCoder::NextKnown(int64_t at, const EncodedRows& to) const {
  int64_t next = to.end;
  for (const auto& known : known_) {
    if (known->format == to.format && known->layer == to.layer && known->begin > at)
      next = std::min(next, known->begin);
  }
  return next;
}

void RowCoder::EncodeNew(int64_t begin, int64_t end, const EncodedRows& to) {
  const Codecs& codecs = Of(to.format);
  ForStraightRows(cache_.pages(), begin, end, [&](int64_t first, int64_t last) {
    const KvSpan span = cache_.Span(to.layer, first, last);
    bound_ = std::max(bound_,
                      codecs.keys.Encode(span.k, first, Part(codecs.keys, to.keys(), to.begin, first, last), team_));
    codecs.values.Encode(span.v, first, Part(codecs.values, to.values(), to.begin, first, last), team_);
  });
}

std::shared_ptr<const EncodedRows> RowCoder::Encode(WireFormat format, int layer, int64_t begin, int64_t end) {
  for (const auto& known : known_) {
    if (known->format == format && known->layer == layer && known->begin == begin && known->end == end) return known;
  }
  std::shared_ptr<EncodedRows> rows = Room(format, layer, begin, end);
  for (int64_t at = begin; at < end;) {
    const int64_t copied = CopyKnown(at, *rows);
    if (copied == at) {
      const int64_t next = NextKnown(at, *rows);
      EncodeNew(at, next, *rows);
      at = next;
    } else {
      at = copied;
    }
  }
  known_.push_back(rows);
  return rows;
}

Status RowCoder::Decode(std::shared_ptr<const EncodedRows> rows) {
  const Codecs& codecs = Of(rows->format);
  Status status = Status::Ok();
  ForStraightRows(cache_.pages(), rows->begin, rows->end, [&](int64_t first, int64_t last) {
    const KvSpan span = cache_.Span(rows->layer, first, last);
    const auto decode = [&](const RowCodec& codec, std::span<std::byte> bytes, const TensorView& to) {
      if (!status.ok()) return;
      status = codec.Decode(Part(codec, bytes, rows->begin, first, last), first, to, team_);
    };
    decode(codecs.keys, rows->keys(), span.k);
    decode(codecs.values, rows->values(), span.v);
  });
  known_.push_back(std::move(rows));
  return status;
}

}  // namespace runahead
