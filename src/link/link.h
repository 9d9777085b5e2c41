// How rows of a KV-cache get from one rank to another.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "base/status.h"
#include "kv/kv_cache.h"
#include "tensor/device.h"

namespace runahead {

/// When a span's bytes moved.
struct MovedAt {
  Clock::time_point begin;
  Clock::time_point end;
};

/// One span on its way. Both caches must live until it is done or its fabric failed and every rank has stopped.
class Transfer {
 public:
  virtual ~Transfer() = default;
  /// Blocks the host until the span has moved. Fails when the fabric failed, or at the deadline.
  virtual Status Wait(Deadline deadline) = 0;
  /// Work enqueued on `stream` afterwards happens after the transfer. Blocks the host only where the device has no
  /// queue.
  virtual Status OrderBefore(Stream& stream, Deadline deadline) = 0;
  /// The time at which it moved, once Wait was a success; nothing where the transport does not tell, or was not asked
  /// to (Fabric::KeepTimes).
  [[nodiscard]] virtual std::optional<MovedAt> Moved() const { return std::nullopt; }
};

/// One direction between two ranks. One thread sends and one thread receives; both post the same sequence of spans.
/// Posting never blocks on the other side.
class Link {
 public:
  virtual ~Link() = default;
  /// Moves `span` once the work enqueued on `after` so far is done. The rows must not change until the transfer is
  /// done.
  virtual std::unique_ptr<Transfer> Send(const KvSpan& span, Stream& after) = 0;
  /// The next span of the sender lands in `span`, without a copy between. Post it early: the sender may then write
  /// straight away.
  virtual std::unique_ptr<Transfer> Receive(const KvSpan& span) = 0;
};

/// The links of a group of ranks. Thread-safe. After Fail the group is dead: every transfer, pending or to come,
/// fails; make a new one.
class Fabric {
 public:
  virtual ~Fabric() = default;
  [[nodiscard]] virtual int ranks() const = 0;
  /// The link from rank `from` to another rank `to`, which may be made at the first call: throws DeviceError where
  /// that fails.
  virtual Link& Between(int from, int to) = 0;
  /// Wakes everyone who waits. The first failure is kept as the reason that they report.
  virtual void Fail(const Status& reason) = 0;
  /// Whether transfers posted from now on tell when they moved, where telling costs something (GPUs). Only while no
  /// transfer is under way.
  virtual void KeepTimes(bool /*keep*/) {}
  /// Keeps `memory` until the fabric is gone: spans of a failed fabric may lie in it that others still look at.
  virtual void Keep(std::shared_ptr<const void> memory) {
    const std::lock_guard lock(keeping_);
    kept_.push_back(std::move(memory));
  }

 private:
  std::mutex keeping_;
  std::vector<std::shared_ptr<const void>> kept_;  // guarded by keeping_
};

}  // namespace runahead
