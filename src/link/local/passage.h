// How a span gets from one rank's memory into another's, within one process.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/deadline.h"
#include "base/status.h"
#include "kv/kv_cache.h"
#include "link/link.h"
#include "link/throttle.h"
#include "tensor/device.h"

namespace runahead {

/// The point in a sender's work behind which its rows may be read.
class Departure {
 public:
  virtual ~Departure() = default;
};

/// A copy that was started.
class Arrival {
 public:
  virtual ~Arrival() = default;
  /// Blocks the host until the rows are there. Fails at the deadline, without naming the link.
  virtual Status Wait(Deadline deadline) = 0;
  /// Work enqueued on `stream` afterwards finds the rows. Blocks the host, until the deadline at the latest, only
  /// where the device has no queue.
  virtual Status OrderBefore(Stream& stream, Deadline deadline) = 0;
  /// The time at which they moved, once Wait was a success; nothing where nobody looked.
  [[nodiscard]] virtual std::optional<MovedAt> Moved() const = 0;
};

/// One direction between two ranks. Depart is called by the sender's thread, Move by whichever side posts last, never
/// by both at once.
class Passage {
 public:
  virtual ~Passage() = default;
  virtual std::shared_ptr<Departure> Depart(Stream& after) = 0;
  /// Starts the copy of rows `from` to rows `to`, which fit. Nothing: it is done.
  virtual std::shared_ptr<Arrival> Move(const KvSpan& from, const KvSpan& to,
                                        const std::shared_ptr<Departure>& when) = 0;
};

/// Copies in host memory, by the calling thread. With a throttle what arrives is late: by no less than it says, and
/// by as much more as the thread takes to wake up (some 50 us).
std::unique_ptr<Passage> MakeHostPassage(int from, int to, std::shared_ptr<Throttle> throttle);

/// What joins ranks on GPUs: a passage for each link.
class GpuPassages {
 public:
  virtual ~GpuPassages() = default;
  /// The passage from rank `from` to rank `to`; it must not outlive this. One call at a time. Throws DeviceError.
  virtual std::unique_ptr<Passage> Make(int from, int to) = 0;
  /// Fabric::KeepTimes.
  virtual void KeepTimes(bool keep) = 0;
};

/// Copies between the memories of the ranks' GPUs (by their ordinals), on a stream of each link's own: straight from
/// one to the other where the GPUs reach each other, unless `through_host`; otherwise through page-locked host
/// memory. Throws DeviceError, or ConfigError in a build without CUDA.
std::unique_ptr<GpuPassages> MakeGpuPassages(const std::vector<int>& gpus, bool through_host,
                                             std::shared_ptr<Throttle> throttle);

}  // namespace runahead
