// Who may ask: API keys, pages of other origins, names that a browser was led here by.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "protocol/http_call.h"
#include "server/api_keys.h"
#include "server/http_text.h"
#include "server/server_options.h"

namespace runahead::server {

/// Whether only this machine reaches an address: 127.0.0.0/8, ::1, "localhost".
bool IsLoopback(std::string_view host);

/// Thread-safe.
class Gate {
 public:
  /// Reads the keys. Throws what ApiKeys throws, and ConfigError for a host that others reach when there are no keys.
  explicit Gate(const ServerOptions& options);

  /// Reads the keys again; when that throws, the old ones stay.
  void Reload();

  /// Why a request is not served, by its head alone; nothing when it is. `local`: it came through a unix socket.
  /// An `open` route asks for no key.
  [[nodiscard]] std::optional<Refusal> Refuse(const protocol::HttpRequest& request, bool open, bool local) const;

  /// Whether it asks what a page of another origin may ask (OPTIONS with an origin and a method).
  [[nodiscard]] static bool IsPreflight(const protocol::HttpRequest& request);

  /// The fields that let a page of the request's origin read the answer; none when it may not.
  [[nodiscard]] std::vector<protocol::HttpField> CorsFields(const protocol::HttpRequest& request) const;

 private:
  [[nodiscard]] std::shared_ptr<const ApiKeys> Keys() const;
  [[nodiscard]] bool MayAsk(std::string_view origin) const;

  const std::string keys_file_;
  const std::vector<std::string> cors_origins_;
  bool loopback_names_only_ = false;
  mutable std::mutex mutex_;
  std::shared_ptr<const ApiKeys> keys_;  // guarded by mutex_; null: none are asked for
};

}  // namespace runahead::server
