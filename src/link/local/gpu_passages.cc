// Copies between GPUs: ordered by events on both sides, so that the host enqueues a whole prompt phase ahead.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "link/local/cuda_gates.h"
#include "link/local/passage.h"
#include "runahead/error.h"
#include "tensor/cuda_check.h"
#include "tensor/cuda_events.h"
#include "tensor/cuda_stream.h"

namespace runahead {
namespace {

/// What the links of one GPU share.
struct GpuSide {
  int gpu = 0;
  std::shared_ptr<EventPool> plain;
  std::shared_ptr<EventPool> timed;
  std::unique_ptr<CudaStream> clock_stream;
  std::shared_ptr<const ClockAnchor> anchor;  // nothing: nobody asks for times
};

class CudaDeparture final : public Departure {
 public:
  CudaDeparture(const std::shared_ptr<EventPool>& pool, cudaStream_t stream) : event_(pool, stream) {}
  [[nodiscard]] const PooledEvent& event() const { return event_; }

 private:
  PooledEvent event_;
};

/// An event with the clock that reads it.
struct Stamp {
  std::unique_ptr<PooledEvent> event;
  std::shared_ptr<const ClockAnchor> anchor;  // nothing: the event has no time

  [[nodiscard]] Clock::time_point Time() const { return anchor->TimeOf(*event); }
};

/// A point in the work of a stream, with its time where the GPU's anchor asks for times.
Stamp StampOn(const GpuSide& side, cudaStream_t stream) {
  return {std::make_unique<PooledEvent>(side.anchor ? side.timed : side.plain, stream), side.anchor};
}

class CudaArrival final : public Arrival {
 public:
  /// `begin` may be empty.
  CudaArrival(Stamp begin, Stamp end) : begin_(std::move(begin)), end_(std::move(end)) {}

  Status Wait(Deadline deadline) override { return end_.event->Wait(deadline); }
  Status OrderBefore(Stream& stream, Deadline /*deadline*/) override {
    end_.event->OrderBefore(static_cast<CudaStream&>(stream).handle());
    return Status::Ok();
  }
  [[nodiscard]] std::optional<MovedAt> Moved() const override {
    if (!begin_.event || !begin_.anchor || !end_.anchor) return std::nullopt;
    return MovedAt{begin_.Time(), end_.Time()};
  }

 private:
  Stamp begin_;
  Stamp end_;
};

/// The ways of copying: from a stream of the sender's GPU on, until a stream knows that the rows are there.
class Way {
 public:
  virtual ~Way() = default;
  /// The streams on which a copy begins and on which its end is known; they may be the same.
  [[nodiscard]] virtual cudaStream_t first() const = 0;
  [[nodiscard]] virtual cudaStream_t last() const = 0;
  /// Enqueues the copy of `bytes`.
  virtual void Copy(void* to, const void* from, size_t bytes) = 0;
};

/// A copy from one GPU's memory straight to another's, or within one GPU's own.
class StraightWay final : public Way {
 public:
  StraightWay(int from, int to) : from_(from), to_(to), stream_(CudaStream::ForCopies(from)) {}
  /// The spans' memory may be freed once this is gone.
  ~StraightWay() override { (void)cudaStreamSynchronize(stream_->handle()); }
  StraightWay(const StraightWay&) = delete;
  StraightWay& operator=(const StraightWay&) = delete;

  [[nodiscard]] cudaStream_t first() const override { return stream_->handle(); }
  [[nodiscard]] cudaStream_t last() const override { return stream_->handle(); }

  void Copy(void* to, const void* from, size_t bytes) override {
    const CurrentDevice current(from_);
    if (from_ == to_) {
      return CheckCuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_->handle()), from_,
                       "cudaMemcpyAsync");
    }
    CheckCuda(cudaMemcpyPeerAsync(to, to_, from, from_, bytes, stream_->handle()), from_, "cudaMemcpyPeerAsync");
  }

 private:
  int from_;
  int to_;
  std::unique_ptr<CudaStream> stream_;
};

/// Through page-locked host memory, in pieces: while one is on its way down to the second GPU, the next comes up from
/// the first.
class HostWay final : public Way {
 public:
  HostWay(const GpuSide& from, const GpuSide& to)
      : from_(from.gpu),
        to_(to.gpu),
        up_(CudaStream::ForCopies(from.gpu)),
        down_(CudaStream::ForCopies(to.gpu)),
        from_pool_(from.plain),
        to_pool_(to.plain) {
    const CurrentDevice current(from_);
    CheckCuda(cudaHostAlloc(&memory_, kSlots * kPieceBytes, cudaHostAllocPortable), from_, "cudaHostAlloc");
  }
  ~HostWay() override {
    (void)cudaStreamSynchronize(up_->handle());
    (void)cudaStreamSynchronize(down_->handle());
    (void)cudaFreeHost(memory_);
  }
  HostWay(const HostWay&) = delete;
  HostWay& operator=(const HostWay&) = delete;

  [[nodiscard]] cudaStream_t first() const override { return up_->handle(); }
  [[nodiscard]] cudaStream_t last() const override { return down_->handle(); }

  void Copy(void* to, const void* from, size_t bytes) override {
    for (size_t done = 0; done < bytes; done += kPieceBytes) {
      CopyPiece(static_cast<std::byte*>(to) + done, static_cast<const std::byte*>(from) + done,
                std::min(kPieceBytes, bytes - done));
    }
  }

 private:
  // Large enough that a piece takes far longer than the events around it (80 us against 10), three so that both legs
  // go on while an event travels.
  static constexpr size_t kPieceBytes = size_t{4} << 20;
  static constexpr size_t kSlots = 3;

  void CopyPiece(std::byte* to, const std::byte* from, size_t bytes) {
    std::byte* const slot = static_cast<std::byte*>(memory_) + slot_ * kPieceBytes;
    std::unique_ptr<PooledEvent>& emptied = emptied_[slot_];
    slot_ = (slot_ + 1) % kSlots;
    if (emptied) emptied->OrderBefore(up_->handle());
    {
      const CurrentDevice current(from_);
      CheckCuda(cudaMemcpyAsync(slot, from, bytes, cudaMemcpyDeviceToHost, up_->handle()), from_, "cudaMemcpyAsync");
    }
    PooledEvent(from_pool_, up_->handle()).OrderBefore(down_->handle());
    {
      const CurrentDevice current(to_);
      CheckCuda(cudaMemcpyAsync(to, slot, bytes, cudaMemcpyHostToDevice, down_->handle()), to_, "cudaMemcpyAsync");
    }
    emptied = std::make_unique<PooledEvent>(to_pool_, down_->handle());
  }

  int from_;
  int to_;
  std::unique_ptr<CudaStream> up_;    // stream on the first GPU
  std::unique_ptr<CudaStream> down_;  // stream on the second GPU
  std::shared_ptr<EventPool> from_pool_;
  std::shared_ptr<EventPool> to_pool_;
  void* memory_ = nullptr;                                    // [kSlots, kPieceBytes], page-locked
  size_t slot_ = 0;                                           // index of the next slot
  std::array<std::unique_ptr<PooledEvent>, kSlots> emptied_;  // recorded when the last piece has left the slot
};

class CudaPassage final : public Passage {
 public:
  /// `gate` may be null.
  CudaPassage(const GpuSide& from, const GpuSide& to, std::unique_ptr<Way> way, std::unique_ptr<Gate> gate)
      : from_(from), to_(to), gate_(std::move(gate)), way_(std::move(way)) {}
  ~CudaPassage() override {
    if (gate_ != nullptr) gate_->OpenForGood();  // must precede the way's wait for its copies
  }
  CudaPassage(const CudaPassage&) = delete;
  CudaPassage& operator=(const CudaPassage&) = delete;

  std::shared_ptr<Departure> Depart(Stream& after) override {
    return std::make_shared<CudaDeparture>(from_.plain, static_cast<CudaStream&>(after).handle());
  }

  std::shared_ptr<Arrival> Move(const KvSpan& from, const KvSpan& to,
                                const std::shared_ptr<Departure>& when) override {
    static_cast<const CudaDeparture&>(*when).event().OrderBefore(way_->first());
    Stamp begin;
    if (from_.anchor) begin = StampOn(from_, way_->first());
    if (gate_ != nullptr) gate_->Begin(from_.gpu, way_->first(), from.bytes());
    way_->Copy(to.k.data(), from.k.data(), from.k.bytes());
    way_->Copy(to.v.data(), from.v.data(), from.v.bytes());
    const GpuSide& last = way_->last() == way_->first() ? from_ : to_;
    if (gate_ != nullptr) gate_->End(last.gpu, way_->last());
    return std::make_shared<CudaArrival>(std::move(begin), StampOn(last, way_->last()));
  }

 private:
  const GpuSide& from_;
  const GpuSide& to_;
  std::unique_ptr<Gate> gate_;
  std::unique_ptr<Way> way_;
};

class CudaPassages final : public GpuPassages {
 public:
  CudaPassages(const std::vector<int>& gpus, bool through_host, std::shared_ptr<Throttle> throttle)
      : gpus_(gpus), through_host_(through_host), throttle_(std::move(throttle)) {
    for (const int gpu : gpus) {
      if (sides_.contains(gpu)) continue;
      GpuSide& side = sides_[gpu];
      side.gpu = gpu;
      side.plain = std::make_shared<EventPool>(gpu, EventTimes::kNo);
      side.timed = std::make_shared<EventPool>(gpu, EventTimes::kYes);
      side.clock_stream = CudaStream::ForCopies(gpu);
    }
    if (throttle_ != nullptr) gates_ = std::make_unique<PacedGates>(gpus, throttle_);
  }

  std::unique_ptr<Passage> Make(int from, int to) override {
    const GpuSide& source = sides_.at(gpus_.at(static_cast<size_t>(from)));
    const GpuSide& target = sides_.at(gpus_.at(static_cast<size_t>(to)));
    std::unique_ptr<Gate> gate;
    if (throttle_ != nullptr && throttle_->Limits(from, to)) gate = gates_->Make(from, to);
    return std::make_unique<CudaPassage>(source, target, MakeWay(source, target), std::move(gate));
  }

  void KeepTimes(bool keep) override {
    for (auto& [gpu, side] : sides_) {
      side.anchor = keep ? std::make_shared<const ClockAnchor>(side.timed, side.clock_stream->handle()) : nullptr;
    }
  }

 private:
  [[nodiscard]] std::unique_ptr<Way> MakeWay(const GpuSide& from, const GpuSide& to) const {
    if (through_host_ || !EnablePeerAccess(from.gpu, to.gpu) || !EnablePeerAccess(to.gpu, from.gpu)) {
      return std::make_unique<HostWay>(from, to);
    }
    return std::make_unique<StraightWay>(from.gpu, to.gpu);
  }

  std::vector<int> gpus_;  // [ranks]
  bool through_host_;
  std::shared_ptr<Throttle> throttle_;  // null: nothing is limited
  std::map<int, GpuSide> sides_;        // key: the GPU's ordinal
  std::unique_ptr<PacedGates> gates_;
};

}  // namespace

std::unique_ptr<GpuPassages> MakeGpuPassages(const std::vector<int>& gpus, bool through_host,
                                             std::shared_ptr<Throttle> throttle) {
  return std::make_unique<CudaPassages>(gpus, through_host, std::move(throttle));
}

}  // namespace runahead
