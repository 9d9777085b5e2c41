#include "server/gate.h"

#include <fmt/format.h>

#include <algorithm>

#include "runahead/error.h"

namespace runahead::server {
namespace {

using protocol::HttpField;
using protocol::HttpRequest;

constexpr int kForbidden = 403;

/// "127.0.0.1" for "127.0.0.1:8080", "::1" for "[::1]:8080".
std::string_view WithoutPort(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, std::min(host.find(']'), host.size()) - 1);
  return host.substr(0, host.find(':'));
}

/// "127.0.0.1:8080" for "http://127.0.0.1:8080".
std::string_view WithoutScheme(std::string_view origin) {
  const size_t at = origin.find("://");
  return at == std::string_view::npos ? std::string_view() : origin.substr(at + 3);
}

Refusal NoKey(bool given) {
  constexpr int kUnauthorized = 401;
  return {kUnauthorized,
          "invalid_api_key",
          given ? "this API key is not known" : "an API key is needed: Authorization: Bearer KEY",
          {{"www-authenticate", "Bearer"}}};
}

}  // namespace

bool IsLoopback(std::string_view host) {
  const bool numbers = host.find_first_not_of("0123456789.") == std::string_view::npos;
  return (numbers && host.starts_with("127.")) || host == "::1" || SameWord(host, "localhost");
}

Gate::Gate(const ServerOptions& options) : keys_file_(options.api_keys), cors_origins_(options.cors_origins) {
  if (!keys_file_.empty()) keys_ = std::make_shared<const ApiKeys>(keys_file_);
  const bool loopback = options.host.empty() || IsLoopback(options.host);
  if (!loopback && keys_ == nullptr && !options.insecure_open) {
    throw ConfigError(
        fmt::format("--host: others than this machine reach {}: give them keys with --api-keys, or let in everybody "
                    "with --insecure-open",
                    options.host));
  }
  for (const std::string& origin : cors_origins_) {
    const std::string_view place = WithoutScheme(origin);
    if (origin == "*" || origin == "null" || (!place.empty() && place.find('/') == std::string_view::npos)) continue;
    throw ConfigError(
        fmt::format("--cors-origin: expected * or an origin like https://chat.example, got '{}'", origin));
  }
  loopback_names_only_ = loopback && keys_ == nullptr && !options.insecure_open;
}

void Gate::Reload() {
  if (keys_file_.empty()) return;
  auto keys = std::make_shared<const ApiKeys>(keys_file_);
  const std::lock_guard lock(mutex_);
  keys_ = std::move(keys);
}

std::shared_ptr<const ApiKeys> Gate::Keys() const {
  const std::lock_guard lock(mutex_);
  return keys_;
}

bool Gate::MayAsk(std::string_view origin) const {
  return std::any_of(cors_origins_.begin(), cors_origins_.end(),
                     [&](const std::string& known) { return known == "*" || SameWord(known, origin); });
}

std::optional<Refusal> Gate::Refuse(const HttpRequest& request, bool open, bool local) const {
  const std::string_view host = request.Field("host");
  // A page that made its own name point to this machine would be of the same origin.
  if (loopback_names_only_ && !local && !host.empty() && !IsLoopback(WithoutPort(host))) {
    return Refusal{
        kForbidden,
        "foreign_host",
        fmt::format("without --api-keys this server answers to localhost and loopback addresses, not to '{}'", host),
        {}};
  }
  if (open) return std::nullopt;
  if (const std::shared_ptr<const ApiKeys> keys = Keys()) {
    constexpr std::string_view kScheme = "bearer ";
    const std::string_view field = request.Field("authorization");
    const bool bearer = field.size() > kScheme.size() && SameWord(field.substr(0, kScheme.size()), kScheme);
    if (!bearer || !keys->Knows(field.substr(kScheme.size()))) return NoKey(!field.empty());
    return std::nullopt;
  }
  // Without keys any page that a user of this machine looks at could make it work.
  const std::string_view origin = request.Field("origin");
  if (origin.empty() || MayAsk(origin) || SameWord(WithoutScheme(origin), host)) return std::nullopt;
  return Refusal{kForbidden,
                 "foreign_origin",
                 fmt::format("pages of '{}' may not ask this server: --cors-origin lets them", origin),
                 {}};
}

bool Gate::IsPreflight(const HttpRequest& request) {
  return request.method == "OPTIONS" && !request.Field("origin").empty() &&
         !request.Field("access-control-request-method").empty();
}

std::vector<HttpField> Gate::CorsFields(const HttpRequest& request) const {
  const std::string_view origin = request.Field("origin");
  if (cors_origins_.empty() || origin.empty()) return {};
  std::vector<HttpField> fields = {{"vary", "origin"}};
  if (!MayAsk(origin)) return fields;
  fields.push_back({"access-control-allow-origin", std::string(origin)});
  fields.push_back({"access-control-expose-headers",
                    "x-request-id, x-runahead-predicted-ttft-ms, x-runahead-ttft-ms, x-runahead-ranks, "
                    "x-runahead-cuts, x-runahead-rounds, retry-after"});
  if (!IsPreflight(request)) return fields;
  constexpr const char* kAnHour = "3600";
  fields.push_back({"access-control-allow-methods", "GET, HEAD, POST, OPTIONS"});
  if (const std::string_view wanted = request.Field("access-control-request-headers"); !wanted.empty()) {
    fields.push_back({"access-control-allow-headers", std::string(wanted)});
  }
  fields.push_back({"access-control-max-age", kAnHour});
  return fields;
}

}  // namespace runahead::server
