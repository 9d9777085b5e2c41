#include "protocol/openapi.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace runahead::protocol {

std::string NumbersUpTo(int64_t last) {
  const std::string digits = fmt::format("{}", last);
  std::string ways = digits;
  if (digits.size() > 1) ways += fmt::format("|[0-9]{{1,{}}}", digits.size() - 1);
  for (size_t i = 0; i < digits.size(); ++i) {  // the same digits before place i, and a smaller one there
    if (digits[i] == '0') continue;
    ways += fmt::format("|{}[0-{}][0-9]{{{}}}", digits.substr(0, i), digits[i] - '1', digits.size() - i - 1);
  }
  return fmt::format("^({})$", ways);
}

std::string OpenApiOf(const std::string& model, int64_t vocab) {
  using OrderedJson = nlohmann::ordered_json;
  OrderedJson json = OrderedJson::parse(OpenApiText());
  OrderedJson& schemas = json["components"]["schemas"];
  schemas["ModelName"] = {{"enum", {model, nullptr}}};
  schemas["TokenId"]["maximum"] = vocab - 1;
  OrderedJson& biases = schemas["LogitBias"]["patternProperties"];
  const OrderedJson bias = biases.begin().value();
  biases = {{NumbersUpTo(vocab - 1), bias}};
  json["paths"]["/v1/models/{model}"]["get"]["parameters"][0]["schema"] = {{"enum", {model}}};
  return json.dump();
}

}  // namespace runahead::protocol
