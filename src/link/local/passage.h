// How a span gets from one rank's memory into another's, within one process.
#pragma once

#include <memory>
#include <vector>

#include "base/deadline.h"
#include "base/status.h"
#include "kv/kv_cache.h"
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
  /// Work enqueued on `stream` afterwards finds the rows.
  virtual void OrderBefore(Stream& stream) = 0;
};

/// One direction between two ranks. Depart is called by the sender's thread, Move by whichever side posts last.
class Passage {
 public:
  virtual ~Passage() = default;
  virtual std::shared_ptr<Departure> Depart(Stream& after) = 0;
  /// Starts the copy of rows `from` to rows `to`, which fit. Nothing: it is done.
  virtual std::shared_ptr<Arrival> Move(const KvSpan& from, const KvSpan& to,
                                        const std::shared_ptr<Departure>& when) = 0;
};

/// Copies in host memory, by the calling thread.
std::unique_ptr<Passage> MakeHostPassage();

/// Copies between the memories of two GPUs by their copy engines, on a stream of its own. Without peer access the
/// driver takes the way through host memory. Throws DeviceError, or ConfigError in a build without CUDA.
std::unique_ptr<Passage> MakeCudaPassage(int from_gpu, int to_gpu);

}  // namespace runahead
