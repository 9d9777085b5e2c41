// Rows of a device with memory of its own on their way between processes: through host memory.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "base/deadline.h"
#include "base/status.h"
#include "kv/kv_cache.h"
#include "tensor/device.h"

namespace runahead {

/// Rows on their way from host memory to a device.
class UcxLanding {
 public:
  virtual ~UcxLanding() = default;
  /// Blocks the host until they are there.
  virtual Status Wait(Deadline deadline) = 0;
  /// Work enqueued on `stream` from now on comes behind them.
  virtual Status OrderBefore(Stream& stream, Deadline deadline) = 0;
};

/// One device's way into host memory and out of it, or what orders UCX and the device where UCX reads and writes the
/// device's memory itself. Thread-safe.
class UcxLane {
 public:
  virtual ~UcxLane() = default;
  /// Whether UCX reads and writes `span` where it lies; it then needs no host memory.
  [[nodiscard]] virtual bool ReachedByUcx(const KvSpan& /*span*/) const { return false; }
  /// Called once on the thread that calls UCX.
  virtual void Enter() {}
  /// Host memory for a span, kept for others when nobody holds it any more. Throws ConfigError.
  virtual std::shared_ptr<std::byte> Take(size_t bytes) = 0;
  /// Copies `span` to `to` (its keys, then its values; null: nowhere) once the work enqueued on `after` so far is
  /// done, and calls `then`, which must not wait and may not use the device. Throws DeviceError.
  virtual void Down(const KvSpan& span, std::shared_ptr<std::byte> to, Stream& after, std::function<void()> then) = 0;
  /// Copies `from` to `span`. Throws DeviceError.
  virtual std::shared_ptr<UcxLanding> Up(const KvSpan& span, std::shared_ptr<std::byte> from) = 0;
  /// Blocks until all is copied and each `then` was called.
  virtual void Settle() noexcept = 0;
};

/// Pieces of rows from this size on move where they lie, for a message more each way; smaller ones are copied on
/// their way.
constexpr size_t kUcxZeroCopyBytes = 16 << 10;

/// Of a GPU: page-locked memory and copies beside what the GPU computes, or neither where UCX knows `gpu_memory`. Of
/// any other device: copies that the rank's thread waits for, up once they are asked for.
std::unique_ptr<UcxLane> MakeUcxLane(Device& device, bool gpu_memory);

/// The former; null where `device` is no GPU.
std::unique_ptr<UcxLane> MakeUcxCudaLane(Device& device, bool gpu_memory);

}  // namespace runahead
