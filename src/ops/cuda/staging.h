// Host memory on its way to a GPU: page-locked buffers that are filled while others travel.
#pragma once

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/cuda/kernels.h"
#include "tensor/tensor_view.h"

namespace runahead::cuda {

/// Owns page-locked host memory that GPU `ordinal` copies from at full speed.
class PinnedBuffer {
 public:
  PinnedBuffer(int ordinal, size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
};

/// Owns an event of GPU `ordinal` that orders streams and tells the host what has passed.
class Event {
 public:
  explicit Event(int ordinal);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void Record(cudaStream_t stream);
  /// Blocks the host until the work before the last Record is done; at once when nothing was recorded.
  void Synchronize() const;

 private:
  int ordinal_;
  cudaEvent_t handle_ = nullptr;
};

/// Copies weights to GPU `ordinal`: threads fill one page-locked slot while the others are copied from, so that
/// reading the files and the transfer overlap. Used by one thread.
class Uploader {
 public:
  explicit Uploader(int ordinal, bool overlap);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  /// to[i] = from[i], with a change of dtype on the GPU where they differ. from: contiguous, in host memory; not
  /// needed any more on return. `to` is written when Finish returns.
  void Copy(TensorView from, void* to, DType to_dtype);
  /// Quantises the rows of `from` on the GPU. from: contiguous, [rows, features], in host memory; not needed any more
  /// on return. codes and scales are written when Finish returns. given: the rows' scales, or empty.
  void CopyAsE4M3(TensorView from, std::span<const float> given, void* codes, float* scales);
  /// Blocks the host until all copies are done.
  void Finish();

 private:
  struct Slot;
  /// The next slot, which is free.
  Slot& NextSlot();
  /// Copies a slot's first bytes to its place on the GPU.
  void SendToOwnPlace(Slot& slot, size_t bytes);

  int ordinal_;
  LaunchOn on_;
  std::vector<Slot> slots_;
  size_t next_ = 0;
};

/// A token that GPU `ordinal` chooses, in its memory and, once it is made, in page-locked memory of the host.
class CudaChosenToken final : public ChosenToken {
 public:
  explicit CudaChosenToken(int ordinal);
  ~CudaChosenToken() override;
  CudaChosenToken(const CudaChosenToken&) = delete;
  CudaChosenToken& operator=(const CudaChosenToken&) = delete;

  void Choose(const LaunchOn& on, TensorView logits);
  int32_t Wait() override;
  /// Where work enqueued behind the choice finds the token.
  [[nodiscard]] const int32_t* device() const { return &scratch_->token; }

 private:
  PinnedBuffer host_;
  Event chosen_;
  LikeliestScratch* scratch_ = nullptr;
};

/// The likeliest tokens of rows of logits, chosen by GPU `ordinal`.
class LikeliestTokens {
 public:
  LikeliestTokens(int ordinal, int64_t most);
  ~LikeliestTokens();
  LikeliestTokens(const LikeliestTokens&) = delete;
  LikeliestTokens& operator=(const LikeliestTokens&) = delete;

  [[nodiscard]] int64_t most() const { return most_; }  // rows of a call
  /// Ops::LikeliestOfMany.
  std::span<const int32_t> Choose(const LaunchOn& on, TensorView logits);

 private:
  int64_t most_;
  PinnedBuffer host_;
  LikeliestScratch* scratch_ = nullptr;  // [most]
};

/// Hands token ids to the GPU without waiting for it: its own copy of them, reused once the copy has left.
class TokenBuffer {
 public:
  explicit TokenBuffer(int ordinal);
  ~TokenBuffer();
  TokenBuffer(const TokenBuffer&) = delete;
  TokenBuffer& operator=(const TokenBuffer&) = delete;

  static constexpr size_t kMost = 1 << 18;  // ids of one call

  /// Enqueues the copy of at most kMost ids on `stream`. The ids are in device memory for what `stream` does before
  /// the next call.
  const int32_t* Send(std::span<const int32_t> tokens, cudaStream_t stream);

 private:
  int ordinal_;
  PinnedBuffer host_;
  Event copied_;
  void* device_ = nullptr;
};

}  // namespace runahead::cuda
