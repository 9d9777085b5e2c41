#include "chat/chat_request.h"

#include "base/json.h"
#include "runahead/error.h"

namespace runahead::chat {
namespace {

void CheckObjects(const JsonObject& request, const char* field) {
  const Json& list = request.At(field);
  if (!list.is_array()) request.Refuse(field, "expected a list of objects");
  for (const Json& entry : list) {
    if (!entry.is_object()) request.Refuse(field, "expected a list of objects");
  }
}

void CheckContinue(const JsonObject& request) {
  constexpr const char* kField = "continue_final_message";
  if (!request.Has(kField)) return;
  const Json& value = request.At(kField);
  if (!value.is_boolean() && !value.is_string()) request.Refuse(kField, "expected true, false or a message's field");
  const bool wanted = value.is_boolean() ? value.get<bool>() : !value.get_ref<const std::string&>().empty();
  if (wanted && request.Bool("add_generation_prompt", false)) {
    request.Refuse(kField, "does not go with add_generation_prompt, which begins a new message");
  }
}

}  // namespace

ChatRequest ChatRequest::Parse(std::string_view text, const std::string& origin) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const Json json = ParseJson(text, origin);
  const JsonObject request(json, origin);
  CheckObjects(request, "messages");
  if (request.At("messages").empty()) request.Refuse("messages", "expected at least one message");
  for (const char* field : {"tools", "documents"}) {
    if (request.Has(field)) CheckObjects(request, field);
  }
  (void)request.Bool("add_generation_prompt", false);
  CheckContinue(request);
  return {std::string(text), request.String("chat_template", ""), request.Has("tools"), origin};
}

}  // namespace runahead::chat
