// Blocks of quantised numbers as GGUF files hold them (github.com/ggml-org/ggml, src/ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace runahead::gguf {

/// A type of elements. Rows are whole blocks.
struct ElementType {
  uint32_t number;        // in files
  std::string_view name;  // "Q4_K"
  int64_t block;          // elements of a block
  size_t bytes;           // bytes of a block
  /// Elements of one block in f32, rounded as ggml's own reference rounds them; null: as stored.
  void (*dequantise)(const std::byte* block, float* to);
};

/// The type with that number, or with that name; null: Runahead does not know it.
const ElementType* TypeOf(uint32_t number);
const ElementType* TypeNamed(std::string_view name);
/// All names, for messages.
std::string TypeNames();

/// Elements of whole blocks of `type`, which has a function, into `to`.
void Dequantise(const ElementType& type, std::span<const std::byte> blocks, float* to);

}  // namespace runahead::gguf
