#include "server/site.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

#include "base/json.h"
#include "protocol/http_status.h"
#include "server/http_text.h"
#include "server/page/page.h"

namespace runahead::server {
namespace {

using protocol::HttpAnswer;
using protocol::HttpCall;
using protocol::HttpHead;
using protocol::HttpRequest;

constexpr std::array<std::string_view, 12> kRoutes = {"/",          "/health",         "/ready",
                                                      "/metrics",   "/runahead/state", "/openapi.json",
                                                      "/v1/models", "/v1/completions", "/v1/chat/completions",
                                                      "/tokenize",  "/detokenize",     "/favicon.ico"};

void SendRefusal(HttpAnswer& answer, const Refusal& refusal) { answer.Send(ErrorHead(refusal), ErrorJson(refusal)); }

/// True for GET and HEAD; else the answer says so.
bool IsRead(const HttpRequest& request, HttpAnswer& answer) {
  if (request.method == "GET" || request.method == "HEAD") return true;
  SendRefusal(answer, {protocol::kNotAllowed,
                       "method_not_allowed",
                       fmt::format("{} is read with GET", PathOf(request.target)),
                       {{"allow", "GET, HEAD"}}});
  return false;
}

void SendPage(const HttpRequest& request, const PageFile& file, HttpAnswer& answer) {
  if (!IsRead(request, answer)) return;
  answer.Send({200,
               {{"content-type", std::string(file.content_type)},
                {"content-security-policy", std::string(kPagePolicy)},
                {"x-content-type-options", "nosniff"},
                {"referrer-policy", "no-referrer"},
                {"cache-control", "no-cache"}}},
              std::string(file.text));
}

}  // namespace

std::string_view Site::RouteOf(std::string_view path) {
  if (path.starts_with("/page/")) return "/page";
  if (path.starts_with("/v1/models/")) return "/v1/models";
  const auto* const known = std::find(kRoutes.begin(), kRoutes.end(), path);
  return known == kRoutes.end() ? "other" : *known;
}

bool Site::IsOpen(std::string_view path) {
  return path == "/" || path == "/health" || path == "/ready" || path == "/favicon.ico" || path.starts_with("/page/");
}

bool Site::AnswerAtOnce(const HttpRequest& request, bool draining, HttpAnswer& answer) const {
  const std::string_view path = PathOf(request.target);
  if (path != "/health" && path != "/ready") return false;
  if (!IsRead(request, answer)) return true;
  const std::string failure = service_.failure();
  const bool ready = failure.empty() && !(draining && path == "/ready");
  Json body = {{"status", ready ? "ok" : failure.empty() ? "draining" : "failed"}};
  if (!failure.empty()) body["failure"] = failure;
  answer.Send(
      {ready ? 200 : protocol::kUnavailable, {{"content-type", "application/json"}, {"cache-control", "no-store"}}},
      body.dump(-1, ' ', false, Json::error_handler_t::replace));
  return true;
}

std::unique_ptr<HttpCall> Site::Start(HttpRequest request, std::shared_ptr<HttpAnswer> answer) const {
  try {
    const std::string_view path = PathOf(request.target);
    if (path == "/metrics") {
      if (!IsRead(request, *answer)) return nullptr;
      answer->Send({200, {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}}}, service_.metrics());
      return nullptr;
    }
    if (const std::optional<PageFile> file = FindPage(path)) {
      SendPage(request, *file, *answer);
      return nullptr;
    }
    const std::string_view route = RouteOf(path);
    if (route == "other" || route == "/page" || route == "/favicon.ico") {
      SendRefusal(*answer, {protocol::kNotFound, "not_found", fmt::format("there is nothing at {}", path), {}});
      return nullptr;
    }
    if (request.method == "HEAD") request.method = "GET";
    return service_.start(std::move(request), answer);
  } catch (const std::exception& error) {
    SendRefusal(*answer, {500, "internal_error", error.what(), {}});
    answer->Break();
    return nullptr;
  }
}

}  // namespace runahead::server
