#include "link/ucx/ucx_lane.h"

#include <utility>

namespace runahead {
namespace {

/// The copy is made by whoever asks for the rows first; the rank's thread alone does.
class PlainLanding final : public UcxLanding {
 public:
  PlainLanding(Device& device, const KvSpan& span, std::shared_ptr<std::byte> from)
      : device_(device), span_(span), from_(std::move(from)) {}

  Status Wait(Deadline deadline) override {
    if (landing_ == nullptr) {
      own_stream_ = device_.NewStream();
      CopyOn(*own_stream_);
    }
    return landing_->Drain(deadline);
  }

  Status OrderBefore(Stream& stream, Deadline deadline) override {
    if (landing_ == nullptr) CopyOn(stream);
    return landing_ == &stream ? Status::Ok() : landing_->Drain(deadline);
  }

 private:
  void CopyOn(Stream& stream) {
    device_.CopyFromHost(span_.k.data(), from_.get(), span_.k.bytes(), stream);
    device_.CopyFromHost(span_.v.data(), from_.get() + span_.k.bytes(), span_.v.bytes(), stream);
    landing_ = &stream;
  }

  Device& device_;
  KvSpan span_;
  std::shared_ptr<std::byte> from_;
  std::unique_ptr<Stream> own_stream_;
  Stream* landing_ = nullptr;  // the stream that copies; null: none yet
};

class PlainLane final : public UcxLane {
 public:
  explicit PlainLane(Device& device) : device_(device) {}

  std::shared_ptr<std::byte> Take(size_t bytes) override {
    return {new std::byte[bytes], std::default_delete<std::byte[]>()};
  }
  void Down(const KvSpan& span, std::shared_ptr<std::byte> to, Stream& after, std::function<void()> then) override {
    device_.CopyToHost(to.get(), span.k.data(), span.k.bytes(), after);
    device_.CopyToHost(to.get() + span.k.bytes(), span.v.data(), span.v.bytes(), after);
    then();
  }
  std::shared_ptr<UcxLanding> Up(const KvSpan& span, std::shared_ptr<std::byte> from) override {
    return std::make_shared<PlainLanding>(device_, span, std::move(from));
  }
  void Settle() noexcept override {}

 private:
  Device& device_;
};

}  // namespace

std::unique_ptr<UcxLane> MakeUcxLane(Device& device, bool gpu_memory) {
  std::unique_ptr<UcxLane> lane = MakeUcxCudaLane(device, gpu_memory);
  return lane != nullptr ? std::move(lane) : std::make_unique<PlainLane>(device);
}

}  // namespace runahead
