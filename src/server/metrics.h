// What Prometheus reads: the server's requests, the engine's answers, and what its ranks do.
#pragma once

#include <memory>
#include <string>

#include "runahead/engine_status.h"
#include "runahead/generate.h"
#include "runahead/request.h"
#include "server/request_log.h"

namespace runahead::server {

/// Thread-safe.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void Answered(const RequestRecord& record);
  void SetConnections(int open);
  /// An answer's choice has ended.
  void Ended(FinishReason finish, const RequestStats& stats);

  /// All of it and what the engine says, in Prometheus's text format.
  [[nodiscard]] std::string Text(const EngineStatus& engine) const;

 private:
  class Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace runahead::server
