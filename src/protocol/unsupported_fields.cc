#include "protocol/unsupported_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "protocol/api_error.h"
#include "protocol/http_status.h"

namespace runahead::protocol {
namespace {

bool IsNothing(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value == 0;
  return value.is_string() ? value.get_ref<const std::string&>().empty() : value.empty();
}

bool IsTrue(const Json& value) { return value.is_null() || value == true; }
bool IsNoTool(const Json& value) { return IsNothing(value) || value == "none" || value == "auto"; }
bool IsText(const Json& value) {
  return IsNothing(value) || (value.is_object() && value.value("type", Json()) == "text");
}
bool IsTextAlone(const Json& value) { return IsNothing(value) || value == Json::array({"text"}); }

struct Unsupported {
  std::string_view name;
  bool (*asks_for_nothing)(const Json& value);
  enum class Where : unsigned char { kChat, kCompletions, kBoth } where;
};

constexpr auto kChat = Unsupported::Where::kChat;
constexpr auto kCompletions = Unsupported::Where::kCompletions;
constexpr auto kBoth = Unsupported::Where::kBoth;

constexpr std::array<Unsupported, 24> kUnsupported = {{{"tools", IsNothing, kBoth},
                                                       {"tool_choice", IsNoTool, kBoth},
                                                       {"functions", IsNothing, kBoth},
                                                       {"function_call", IsNoTool, kBoth},
                                                       {"response_format", IsText, kBoth},
                                                       {"modalities", IsTextAlone, kChat},
                                                       {"audio", IsNothing, kChat},
                                                       {"prediction", IsNothing, kChat},
                                                       {"web_search_options", IsNothing, kChat},
                                                       {"suffix", IsNothing, kCompletions},
                                                       {"use_beam_search", IsNothing, kBoth},
                                                       {"prompt_logprobs", IsNothing, kBoth},
                                                       {"min_tokens", IsNothing, kBoth},
                                                       {"truncate_prompt_tokens", IsNothing, kBoth},
                                                       {"include_stop_str_in_output", IsNothing, kBoth},
                                                       {"skip_special_tokens", IsTrue, kBoth},
                                                       {"guided_json", IsNothing, kBoth},
                                                       {"guided_regex", IsNothing, kBoth},
                                                       {"guided_choice", IsNothing, kBoth},
                                                       {"guided_grammar", IsNothing, kBoth},
                                                       {"structured_outputs", IsNothing, kBoth},
                                                       {"json_schema", IsNothing, kBoth},
                                                       {"grammar", IsNothing, kBoth},
                                                       {"logits_processors", IsNothing, kBoth}}};

[[noreturn]] void Refuse(std::string_view name) {
  throw ApiError(kBadRequest, fmt::format("{} is not supported by this server", name), "unsupported_parameter",
                 std::string(name));
}

}  // namespace

void RefuseUnsupported(const Json& body, bool chat) {
  for (const Unsupported& each : kUnsupported) {
    if (each.where == (chat ? kCompletions : kChat)) continue;
    const auto field = body.find(each.name);
    if (field != body.end() && !each.asks_for_nothing(*field)) Refuse(each.name);
  }
  if (chat) return;
  const auto best_of = body.find("best_of");
  const auto choices = body.find("n");
  const Json wanted = choices == body.end() || choices->is_null() ? Json(1) : *choices;
  if (best_of != body.end() && !best_of->is_null() && *best_of != wanted) Refuse("best_of");
}

}  // namespace runahead::protocol
