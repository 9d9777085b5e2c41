// Where tensors live and work is done: memory, streams and their ordering.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"
#include "tensor/tensor_view.h"

namespace runahead {

/// Owns a block of a device's memory. Move-only; frees it on destruction.
class Buffer {
 public:
  /// Returns the memory; called once, from any thread.
  using Deleter = void (*)(void* data, size_t bytes);

  Buffer() = default;
  Buffer(void* data, size_t bytes, Deleter deleter) : data_(data), bytes_(bytes), deleter_(deleter) {}
  ~Buffer() { Reset(); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        deleter_(other.deleter_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      Reset();
      data_ = std::exchange(other.data_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
      deleter_ = other.deleter_;
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(data_); }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  /// The start of the buffer as a tensor; it must be large enough.
  [[nodiscard]] TensorView View(DType dtype, Shape shape) const {
    const TensorView view(data_, dtype, shape);
    CHECK_LE(view.bytes(), bytes_);
    return view;
  }

 private:
  void Reset() {
    if (data_ != nullptr) deleter_(data_, bytes_);
    data_ = nullptr;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
  Deleter deleter_ = nullptr;
};

/// A point in a stream's work, for measurements.
class Mark {
 public:
  virtual ~Mark() = default;
  /// Time from `earlier`, a mark on a stream of the same device, to this one; the streams must have passed both.
  [[nodiscard]] virtual double MillisecondsSince(const Mark& earlier) const = 0;
};

/// A queue of work on one device, run in order. On the CPU work is done before the enqueuing call returns.
class Stream {
 public:
  virtual ~Stream() = default;
  /// The point behind all work enqueued so far.
  virtual std::unique_ptr<Mark> NewMark() = 0;
  /// Blocks the host until all work enqueued so far is done. Throws DeviceError when the device failed.
  virtual void Synchronize() = 0;
  /// Synchronize that ends at `deadline` with a failure that names the device.
  virtual Status Drain(Deadline deadline) = 0;
};

/// One rank's device: a GPU, or a set of CPU threads. Used by one thread at a time, except Allocate.
class Device {
 public:
  virtual ~Device() = default;

  [[nodiscard]] virtual std::string name() const = 0;
  /// Allocates at least `bytes` of uninitialised memory, aligned to 64 bytes or more. Throws ConfigError naming the
  /// size when there is no room.
  virtual Buffer Allocate(size_t bytes) = 0;
  /// Bytes that Allocate can still give, as far as the device can tell.
  [[nodiscard]] virtual size_t FreeBytes() const = 0;
  /// Whether host code reads and writes this memory.
  [[nodiscard]] virtual bool is_host() const { return true; }
  /// Whether Copy can also read the memory of `peer`, without a stop in host memory. Opens the way where there is
  /// one.
  virtual bool Reaches(const Device& peer) { return this == &peer; }
  virtual std::unique_ptr<Stream> NewStream() = 0;
  /// Copies `bytes` from host memory, ordered on `stream`; the source may be reused on return.
  virtual void CopyFromHost(void* to, const void* from, size_t bytes, Stream& stream) = 0;
  /// Copies `bytes` within the device's memory, or from that of one it reaches, ordered on `stream`. The two ranges
  /// do not overlap.
  virtual void Copy(void* to, const void* from, size_t bytes, Stream& stream) = 0;
  /// Copies `bytes` to host memory; they are there on return.
  virtual void CopyToHost(void* to, const void* from, size_t bytes, Stream& stream) = 0;
};

}  // namespace runahead
