#include "protocol/conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "protocol/api_error.h"
#include "protocol/http_status.h"
#include "protocol/request_fields.h"

namespace runahead::protocol {
namespace {

using OrderedJson = nlohmann::ordered_json;

[[noreturn]] void Refuse(const std::string& field, const OrderedJson& value, const std::string& what) {
  const Json alone = {{field, Json::parse(value.dump())}};
  JsonObject(alone, kOrigin).Refuse(field.c_str(), what);
}

[[noreturn]] void RefuseUnsupportedPart(const std::string& field, const std::string& what) {
  throw ApiError(kBadRequest, fmt::format("{}: {} not supported by this server", field, what),
                 "unsupported_parameter", field);
}

bool IsEmpty(const OrderedJson& value) { return value.is_null() || (value.is_structured() && value.empty()); }

/// The text of one part of a content.
const std::string& TextOfPart(const std::string& field, const OrderedJson& part) {
  const auto type = part.is_object() ? part.find("type") : part.end();
  if (!part.is_object() || type == part.end() || !type->is_string()) {
    Refuse(field, part, "expected an object with a type");
  }
  if (*type != "text") RefuseUnsupportedPart(field, fmt::format("parts of type {} are", type->dump()));
  const auto text = part.find("text");
  if (text == part.end() || !text->is_string()) Refuse(field, part, "expected a text");
  return text->get_ref<const std::string&>();
}

/// Makes one text of a list of parts, as templates for models of text expect it.
void JoinParts(const std::string& field, OrderedJson& content) {
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    if (i > 0) text += '\n';
    text += TextOfPart(fmt::format("{}[{}]", field, i), content[i]);
  }
  content = std::move(text);
}

void ReadMessage(const std::string& field, OrderedJson& message) {
  if (!message.is_object()) Refuse(field, message, "expected an object with role and content");
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) Refuse(field, message, "expected a role that is a text");
  if (*role == "tool" || *role == "function") RefuseUnsupportedPart(field + ".role", "tools are");
  for (const char* call : {"tool_calls", "function_call"}) {
    const auto found = message.find(call);
    if (found == message.end()) continue;
    if (!IsEmpty(*found)) RefuseUnsupportedPart(fmt::format("{}.{}", field, call), "tools are");
    message.erase(call);
  }
  const auto content = message.find("content");
  const bool missing = content == message.end() || content->is_null();
  if (missing && message["role"] != "assistant") Refuse(field, message, "expected a content");
  if (missing) return;
  const std::string name = field + ".content";
  if (content->is_array()) return JoinParts(name, *content);
  if (!content->is_string()) Refuse(name, *content, "expected a text or a list of parts");
}

/// Makes "developer", OpenAI's newer name, the role that templates know.
void NameSystem(OrderedJson& message) {
  if (message.at("role") == "developer") message["role"] = "system";
}

OrderedJson ReadMessages(OrderedJson& body) {
  const auto messages = body.find("messages");
  if (messages == body.end()) throw FieldError("messages", "request: messages is missing, a value is needed");
  if (!messages->is_array() || messages->empty()) Refuse("messages", *messages, "expected a list of messages");
  for (size_t i = 0; i < messages->size(); ++i) {
    ReadMessage(fmt::format("messages[{}]", i), (*messages)[i]);
    NameSystem((*messages)[i]);
  }
  return std::move(*messages);
}

bool ReadBool(const OrderedJson& body, const char* key, bool otherwise) {
  const auto field = body.find(key);
  if (field == body.end() || field->is_null()) return otherwise;
  if (!field->is_boolean()) Refuse(key, *field, "expected true or false");
  return field->get<bool>();
}

/// Adds the variables of the template.
void AddVariables(const OrderedJson& body, OrderedJson& request) {
  constexpr const char* kField = "chat_template_kwargs";
  constexpr std::array<std::string_view, 4> kOwn = {"messages", "tools", "documents", "chat_template"};
  const auto variables = body.find(kField);
  if (variables == body.end() || variables->is_null()) return;
  if (!variables->is_object()) Refuse(kField, *variables, "expected an object");
  for (const auto& [name, value] : variables->items()) {
    const bool own = std::find(kOwn.begin(), kOwn.end(), name) != kOwn.end() || request.contains(name);
    if (own) Refuse(fmt::format("{}.{}", kField, name), value, "expected this as a field of the request itself");
    request[name] = value;
  }
}

/// Adds the template's name. A template itself is refused: it would be a program of anybody's.
void AddTemplate(const OrderedJson& body, OrderedJson& request) {
  constexpr const char* kField = "chat_template";
  const auto name = body.find(kField);
  if (name == body.end() || name->is_null()) return;
  if (!name->is_string() || name->get_ref<const std::string&>().find('{') != std::string::npos) {
    Refuse(kField, *name, "expected the name of one of the model's templates");
  }
  request[kField] = *name;
}

/// Where the order of keys is kept, each is looked for among all: the work is that of the square.
void CheckKeys(const Json& value) {
  constexpr size_t kMostKeys = 1000;
  if (value.is_object() && value.size() > kMostKeys) {
    throw ConfigError(fmt::format("request: an object has {} keys, expected {} at most", value.size(), kMostKeys));
  }
  if (!value.is_structured()) return;
  for (const Json& part : value) CheckKeys(part);
}

}  // namespace

chat::ChatRequest ReadConversation(std::string_view body, const Json& parsed) {
  CheckKeys(parsed);
  OrderedJson json = OrderedJson::parse(body);
  OrderedJson request = {{"messages", ReadMessages(json)}};
  const bool goes_on = ReadBool(json, "continue_final_message", false);
  request["continue_final_message"] = goes_on;
  request["add_generation_prompt"] = ReadBool(json, "add_generation_prompt", !goes_on);
  if (const auto documents = json.find("documents"); documents != json.end() && !documents->is_null()) {
    request["documents"] = *documents;
  }
  AddVariables(json, request);
  AddTemplate(json, request);
  return chat::ChatRequest::Parse(request.dump(), kOrigin);
}

}  // namespace runahead::protocol
