#include "prefill/slow_exchange.h"

#include "base/check.h"

namespace runahead {
namespace {

class SlowExchange final : public PrefillExchange {
 public:
  SlowExchange(std::unique_ptr<PrefillExchange> inner, double slowdown, WorkClock clock,
               const std::atomic<bool>* given_up)
      : inner_(std::move(inner)), slowdown_(slowdown), clock_(clock), given_up_(given_up) {
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
    while (clock_() < end_s && (given_up_ == nullptr || !*given_up_)) {
    }
  }

  std::unique_ptr<PrefillExchange> inner_;
  double slowdown_;
  WorkClock clock_;
  const std::atomic<bool>* given_up_;
  double stretch_begin_s_ = 0;
};

}  // namespace

std::unique_ptr<PrefillExchange> MakeSlowExchange(std::unique_ptr<PrefillExchange> inner, double slowdown,
                                                  WorkClock clock, const std::atomic<bool>* given_up) {
  return std::make_unique<SlowExchange>(std::move(inner), slowdown, clock, given_up);
}

}  // namespace runahead
