#include "experiment/side_traffic.h"

#include <deque>
#include <utility>

namespace runahead {
namespace {

constexpr KvShape kShape{.layers = 1, .kv_heads = 8, .head_dim = 128, .dtype = DType::kBF16};
constexpr int64_t kRows = 1024;  // 4 MiB at once

}  // namespace

SideTraffic::SideTraffic(EngineState& engine, int from, int to)
    : fabric_(engine.Hold().NewFabric()),
      link_(fabric_->Between(from, to)),
      source_(engine.rank(from).device(), kShape, kRows),
      target_(engine.rank(to).device(), kShape, kRows),
      stream_(engine.rank(from).device().NewStream()),
      thread_([this] { Run(); }) {}

SideTraffic::~SideTraffic() {
  stopping_ = true;
  thread_.join();
}

double SideTraffic::Rate() {
  const Clock::time_point now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - std::exchange(asked_, now)).count();
  return static_cast<double>(bytes_.exchange(0)) / seconds;
}

void SideTraffic::Run() {
  constexpr size_t kAhead = 2;  // copies under way at once, so that the link is never idle
  constexpr std::chrono::duration<double> kPatience(60);
  struct Pair {
    std::unique_ptr<Transfer> received;
    std::unique_ptr<Transfer> sent;
  };
  std::deque<Pair> under_way;
  const KvSpan from = source_.Span(0, 0, kRows);
  const KvSpan to = target_.Span(0, 0, kRows);
  while (!stopping_ || !under_way.empty()) {
    if (!stopping_ && under_way.size() < kAhead) {
      Pair next;
      next.received = link_.Receive(to);
      next.sent = link_.Send(from, *stream_);
      under_way.push_back(std::move(next));
      continue;
    }
    if (!under_way.front().received->Wait(After(kPatience)).ok()) return;
    bytes_ += from.bytes();
    under_way.pop_front();
  }
}

}  // namespace runahead
