// The rows of one rank that travel in fewer bits: encoded once, passed on as they came.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "codec/row_codec.h"
#include "kv/kv_cache.h"
#include "ops/cpu/team.h"
#include "runahead/options.h"

namespace runahead {

/// Rows [begin, end) of one layer as they travel.
struct EncodedRows {
  WireFormat format = WireFormat::kInt8;
  int layer = 0;
  int64_t begin = 0;
  int64_t end = 0;
  size_t key_bytes = 0;
  size_t value_bytes = 0;
  std::unique_ptr<std::byte[]> bytes;  // keys, then values

  [[nodiscard]] std::span<std::byte> keys() const { return {bytes.get(), key_bytes}; }
  [[nodiscard]] std::span<std::byte> values() const { return {bytes.get() + key_bytes, value_bytes}; }
  /// The bytes as a link moves them: elements of 16 bits.
  [[nodiscard]] KvSpan Span() const;
};

/// Encodes and decodes rows of a cache in host memory, with as many threads as the rank has. Remembers what it
/// encoded or decoded in a layer, so that no row is encoded twice, and that rows which came are passed on in the same
/// bytes: the error does not grow from rank to rank. Used by the rank's thread.
class RowCoder {
 public:
  RowCoder(const KvView& cache, int threads);

  /// Room for rows that will come.
  [[nodiscard]] std::shared_ptr<EncodedRows> Room(WireFormat format, int layer, int64_t begin, int64_t end);
  /// Rows of the cache in `format`.
  [[nodiscard]] std::shared_ptr<const EncodedRows> Encode(WireFormat format, int layer, int64_t begin, int64_t end);
  /// Writes rows that came into the cache.
  [[nodiscard]] Status Decode(std::shared_ptr<const EncodedRows> rows);
  /// The layer is done: nothing more of it is encoded.
  void Forget() { known_.clear(); }

  /// Largest error bound of the keys encoded so far, see RowCodec::Encode.
  [[nodiscard]] double bound() const { return bound_; }

 private:
  /// The codecs of a format.
  struct Codecs {
    RowCodec keys;
    RowCodec values;
  };

  [[nodiscard]] const Codecs& Of(WireFormat format) const { return codecs_[static_cast<size_t>(format)]; }
  /// Copies what is known of [at, to.end) from `at` on; returns where that ends.
  [[nodiscard]] int64_t CopyKnown(int64_t at, const EncodedRows& to) const;
  /// The first row behind `at` that is known, at most to.end.
  [[nodiscard]] int64_t NextKnown(int64_t at, const EncodedRows& to) const;
  void EncodeNew(int64_t begin, int64_t end, const EncodedRows& to);

  KvView cache_;
  cpu::Team team_;
  std::vector<Codecs> codecs_;                             // [formats]
  std::vector<std::shared_ptr<const EncodedRows>> known_;  // rows of the layer at work
  double bound_ = 0;
};

}  // namespace runahead
