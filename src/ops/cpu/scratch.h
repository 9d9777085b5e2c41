// Memory for intermediate results that grows to the largest request and is then reused.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace runahead::cpu {

/// Owns one block, aligned to 64 bytes and uninitialised, in huge pages where it fills one. One thread at a time.
class Scratch {
 public:
  /// At least `count` elements; what an earlier call returned is no longer valid.
  template <typename T>
  [[nodiscard]] T* Get(size_t count) {
    return static_cast<T*>(Bytes(count * sizeof(T)));
  }

 private:
  struct Free {
    void operator()(void* data) const { std::free(data); }  // NOLINT(cppcoreguidelines-no-malloc): aligned_alloc
  };

  void* Bytes(size_t bytes) {
    if (bytes > bytes_) {
      constexpr size_t kHugePage = size_t{2} << 20;
      const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
      const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
      block_.reset();
      block_.reset(std::aligned_alloc(alignment, rounded));
      if (block_ == nullptr) throw std::bad_alloc();
      if (alignment == kHugePage) ::madvise(block_.get(), rounded, MADV_HUGEPAGE);
      bytes_ = rounded;
    }
    return block_.get();
  }

  std::unique_ptr<void, Free> block_;
  size_t bytes_ = 0;
};

}  // namespace runahead::cpu
