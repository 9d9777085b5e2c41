// What a server answers: its own routes, the page's, and for all others what it was given.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "protocol/http_call.h"

namespace runahead::server {

/// What stands behind a server. All may be called by any thread.
struct Service {
  /// Runs a request; never null, throws nothing. May take long.
  std::function<std::unique_ptr<protocol::HttpCall>(protocol::HttpRequest, std::shared_ptr<protocol::HttpAnswer>)>
      start;
  /// Why nothing can be answered any more; empty: all is well. Takes no time.
  std::function<std::string()> failure;
  /// All metrics, as Prometheus reads them.
  std::function<std::string()> metrics;
};

/// Thread-safe.
class Site {
 public:
  explicit Site(Service service) : service_(std::move(service)) {}

  /// The route of a path as metrics and logs name it: "/page" for all files of the page, "other" for what is not
  /// served.
  static std::string_view RouteOf(std::string_view path);

  /// Whether it is answered without a key.
  static bool IsOpen(std::string_view path);

  /// Answers what takes no time, and returns true; false: the request is for Start.
  bool AnswerAtOnce(const protocol::HttpRequest& request, bool draining, protocol::HttpAnswer& answer) const;

  /// Runs one request. Throws nothing; null when the answer is complete.
  std::unique_ptr<protocol::HttpCall> Start(protocol::HttpRequest request,
                                            std::shared_ptr<protocol::HttpAnswer> answer) const;

 private:
  Service service_;
};

}  // namespace runahead::server
