#include "prefill/slow_exchange.h"

#include "base/check.h"

namespace runahead {
namespace {

class SlowExchange final : public PrefillExchange {
 public:
  SlowExchange(std::unique_ptr<PrefillExchange> inner, double slowdown)
      : inner_(std::move(inner)), slowdown_(slowdown) {
    CHECK_GE(slowdown, 1);
  }

  void Start(Stream& stream) override {
    inner_->Start(stream);
    stretch_begin_ = Clock::now();
  }
  Status LayerReady(int layer, Stream& stream) override {
    stream.Synchronize();
    Spin();
    Status status = inner_->LayerReady(layer, stream);
    stretch_begin_ = Clock::now();
    return status;
  }
  [[nodiscard]] AttentionExtent Extent(int64_t end) const override { return inner_->Extent(end); }
  Status Finish(Stream& stream) override {
    stream.Synchronize();
    Spin();
    return inner_->Finish(stream);
  }

 private:
  void Spin() {
    const auto computed = Clock::now();
    const auto end =
        stretch_begin_ + std::chrono::duration_cast<Clock::duration>((computed - stretch_begin_) * slowdown_);
    while (Clock::now() < end) {
    }
  }

  std::unique_ptr<PrefillExchange> inner_;
  double slowdown_;
  Clock::time_point stretch_begin_;
};

}  // namespace

std::unique_ptr<PrefillExchange> MakeSlowExchange(std::unique_ptr<PrefillExchange> inner, double slowdown) {
  return std::make_unique<SlowExchange>(std::move(inner), slowdown);
}

}  // namespace runahead
