// What the API refuses, with the status and the body that tell it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "protocol/http_call.h"
#include "runahead/error.h"

namespace runahead::protocol {

/// An answer that is an error. `what()` is its message.
class ApiError : public Error {
 public:
  ApiError(int status, const std::string& message, std::string code, std::string param = "")
      : Error(message), status_(status), code_(std::move(code)), param_(std::move(param)) {}

  [[nodiscard]] int status() const { return status_; }
  [[nodiscard]] const std::string& code() const { return code_; }    // "model_not_found"
  [[nodiscard]] const std::string& param() const { return param_; }  // the field's name; empty: none
  [[nodiscard]] const std::vector<HttpField>& fields() const { return fields_; }
  /// Adds a field to the head, such as `allow` or `retry-after`.
  void Add(HttpField field) { fields_.push_back(std::move(field)); }

 private:
  int status_;
  std::string code_;
  std::string param_;
  std::vector<HttpField> fields_;
};

/// {"error": {"message", "type", "param", "code"}} as OpenAI has it; the type follows from the status.
std::string ErrorBody(const ApiError& error);

/// What was thrown by a request's way through reading and submitting, as the API says it: what is wrong with a
/// request is 400, a full queue or a deadline 429, a failed engine 503, anything else 500.
ApiError AsApiError(const std::exception& thrown);

}  // namespace runahead::protocol
