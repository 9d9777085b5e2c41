#include "prefill/slow_exchange.h"

#include "base/check.h"

namespace runahead {
namespace {

class SlowExchange final : public PrefillExchange {
 public:
  SlowExchange(std::unique_ptr<PrefillExchange> inner, double slowdown, WorkClock clock)
      : inner_(std::move(inner)), slowdown_(slowdown), clock_(clock) {
    CHECK_GE(slowdown, 1);
  }

  void Start(Stream& stream) override {
    inner_->Start(stream);
    stretch_begin_s_ = clock_();
  }
  Status LayerReady(int layer, Stream& stream) override {
    stream.Synchronize();
    Spin();
    Status status = inner_->LayerReady(layer, stream);
    stretch_begin_s_ = clock_();
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
    const double end_s = stretch_begin_s_ + (clock_() - stretch_begin_s_) * slowdown_;
    while (clock_() < end_s) {
    }
  }

  std::unique_ptr<PrefillExchange> inner_;
  double slowdown_;
  WorkClock clock_;
  double stretch_begin_s_ = 0;
};

}  // namespace

std::unique_ptr<PrefillExchange> MakeSlowExchange(std::unique_ptr<PrefillExchange> inner, double slowdown,
                                                  WorkClock clock) {
  return std::make_unique<SlowExchange>(std::move(inner), slowdown, clock);
}

}  // namespace runahead
