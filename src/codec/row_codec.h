// Rows of keys or values as they travel: exact, or quantised, each row by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "codec/head_kernels.h"
#include "ops/cpu/team.h"
#include "runahead/options.h"
#include "tensor/tensor_view.h"

namespace runahead {

enum class RowKind : unsigned char { kKeys, kValues };

/// Turns rows [rows, heads, features] of one tensor into bytes and back. Every head of every row is encoded by
/// itself, with scales of its own, so that a part of encoded rows is the encoding of that part. Keys are mixed by a
/// Hadamard transform first, which spreads features that are much larger than the others (QuaRot, Ashkboos et al.
/// 2024). The first kExactRows positions, which attention reads most (StreamingLLM, Xiao et al. 2024), stay as they
/// are. The same rows give the same bytes on every processor. Immutable; thread-safe.
class RowCodec {
 public:
  static constexpr int64_t kExactRows = 4;

  RowCodec(WireFormat format, RowKind kind, int64_t heads, int64_t features, DType dtype);

  /// Bytes of the encoded rows of positions [begin, end), an even number.
  [[nodiscard]] size_t Bytes(int64_t begin, int64_t end) const;

  /// Encodes contiguous rows of positions [begin, ...) into `to`, which has Bytes. Returns, of keys, an upper bound
  /// of the Euclidean distance e of any head from what Decode makes of it: a score q k / sqrt(features) is wrong by
  /// at most e times the root mean square of the features of q. 0 for values and exact rows, infinity where rows are
  /// not finite.
  double Encode(const TensorView& rows, int64_t begin, std::span<std::byte> to, const cpu::Team& team) const;

  /// The inverse. Fails, with nothing written, unless `from` has Bytes.
  [[nodiscard]] Status Decode(std::span<const std::byte> from, int64_t begin, const TensorView& rows,
                              const cpu::Team& team) const;

 private:
  /// Rows of `rows`, from position `begin` on, that travel as they are.
  [[nodiscard]] int64_t ExactOf(int64_t begin, int64_t rows) const;
  void Check(const TensorView& rows, int64_t begin) const;

  int64_t heads_;
  size_t exact_bytes_;    // bytes of a row as it is
  size_t encoded_bytes_;  // bytes of an encoded row
  bool exact_;
  cpu::HeadCoding coding_;
};

}  // namespace runahead
