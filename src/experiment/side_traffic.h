// Other people's traffic on a link, for experiments.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "engine/engine_state.h"

namespace runahead {

/// Copies from rank `from` to rank `to` over the engine's kind of links, and under their limits, as fast as it goes,
/// from its making to its end.
class SideTraffic {
 public:
  SideTraffic(EngineState& engine, int from, int to);
  ~SideTraffic();
  SideTraffic(const SideTraffic&) = delete;
  SideTraffic& operator=(const SideTraffic&) = delete;

  /// Bytes per second since the last call, or since its making.
  double Rate();

 private:
  void Run();

  std::unique_ptr<Fabric> fabric_;
  Link& link_;
  KvCache source_;
  KvCache target_;
  std::unique_ptr<Stream> stream_;
  Clock::time_point asked_ = Clock::now();
  std::atomic<size_t> bytes_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace runahead
