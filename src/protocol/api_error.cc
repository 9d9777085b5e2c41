#include "protocol/api_error.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "protocol/http_status.h"
#include "protocol/request_fields.h"

namespace runahead::protocol {
namespace {

using OrderedJson = nlohmann::ordered_json;

const char* TypeOf(int status) {
  if (status >= kInternalError) return "server_error";
  return status == kTooManyRequests ? "rate_limit_error" : "invalid_request_error";
}

OrderedJson TextOrNull(const std::string& text) { return text.empty() ? OrderedJson(nullptr) : OrderedJson(text); }

ApiError TooMany(const RefusedError& refused) {
  const bool full = refused.reason() == RefusedError::Reason::kQueueFull;
  ApiError error(kTooManyRequests, refused.what(), full ? "queue_full" : "deadline");
  // Whole seconds, at least one: to come again at once helps nobody.
  if (full || refused.retry_after_s() > 0) {
    error.Add({"retry-after", fmt::format("{:.0f}", std::max(1.0, std::ceil(refused.retry_after_s())))});
  }
  return error;
}

}  // namespace

std::string ErrorBody(const ApiError& error) {
  const OrderedJson json = {{"error",
                             {{"message", error.what()},
                              {"type", TypeOf(error.status())},
                              {"param", TextOrNull(error.param())},
                              {"code", TextOrNull(error.code())}}}};
  // A message may show a part of what was sent, cut within a character.
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

ApiError AsApiError(const std::exception& thrown) {
  if (const auto* error = dynamic_cast<const ApiError*>(&thrown)) return *error;
  if (const auto* error = dynamic_cast<const RefusedError*>(&thrown)) return TooMany(*error);
  if (const auto* error = dynamic_cast<const ContextError*>(&thrown)) {
    return {kBadRequest, error->what(), "context_length_exceeded", error->field()};
  }
  if (const auto* error = dynamic_cast<const FieldError*>(&thrown)) {
    return {kBadRequest, error->what(), "invalid_value", error->field()};
  }
  if (dynamic_cast<const ConfigError*>(&thrown) != nullptr) return {kBadRequest, thrown.what(), "invalid_value"};
  if (dynamic_cast<const DeviceError*>(&thrown) != nullptr || dynamic_cast<const LinkError*>(&thrown) != nullptr) {
    return {kUnavailable, thrown.what(), "engine_failed"};
  }
  return {kInternalError, thrown.what(), "internal_error"};
}

}  // namespace runahead::protocol
