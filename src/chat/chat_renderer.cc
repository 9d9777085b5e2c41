#include "chat/chat_renderer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/deadline.h"
#include "base/json.h"
#include "runahead/error.h"

namespace runahead::chat {
namespace {

constexpr double kRenderingSeconds = 1.5;  // an error is there within two, also where the process starts anew
constexpr double kFewestSeconds = 1;       // once it has started, however long that took
constexpr size_t kLongestRequest = size_t{64} << 20;

/// One line without control characters.
std::string OneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return (c >= 0 && c < ' ') || c == '\x7F'; }, ' ');
  return text;
}

std::string Message(const ChatTemplate& chosen, const Json& special_tokens, const ChatRequest& request) {
  std::string message = fmt::format(R"({{"template": {}, "special_tokens": {}, "conversation": {}}})",
                                    Json(chosen.text).dump(), special_tokens.dump(), request.text);
  if (message.size() > kLongestRequest) {
    throw ConfigError(fmt::format("{}: a conversation may have {} bytes with its template, got {}", request.origin,
                                  kLongestRequest, message.size()));
  }
  return message;
}

}  // namespace

void ChatRenderer::Start() {
  const std::lock_guard lock(mutex_);
  StartLocked();
}

void ChatRenderer::StartLocked() {
  if (process_.Runs()) return;
  process_.Kill();
  process_ = RenderProcess::Start();
}

std::string ChatRenderer::Render(const ChatRequest& request) {
  const ChatTemplate chosen = templates_.Choose(request.chat_template, request.tools);
  const std::string message = Message(chosen, templates_.special_tokens(), request);
  const std::string origin = fmt::format("{}: {}", request.origin, chosen.origin);
  const std::lock_guard lock(mutex_);
  const Clock::time_point begin = Clock::now();
  StartLocked();
  const std::chrono::duration<double> start = Clock::now() - begin;
  const double seconds = std::max(kRenderingSeconds - start.count(), kFewestSeconds);
  Json reply = Json::parse(Ask(message, seconds, origin), nullptr, /*allow_exceptions=*/false);
  const bool sound =
      reply.is_object() && (reply.value("text", Json()).is_string() || reply.value("error", Json()).is_string());
  if (!sound || reply.value("exhausted", Json(false)) != Json(false)) process_.Kill();
  if (!sound) throw ConfigError(origin + ": the process that renders sent no sound answer");
  if (reply.contains("text")) return std::move(reply["text"].get_ref<std::string&>());
  throw ConfigError(fmt::format("{}: {}", origin, OneLine(reply["error"].get<std::string>())));
}

std::string ChatRenderer::Ask(const std::string& message, double seconds, const std::string& origin) {
  std::string reply;
  switch (process_.Ask(message, After(std::chrono::duration<double>(seconds)), reply)) {
    case RenderProcess::Outcome::kReplied:
      return reply;
    case RenderProcess::Outcome::kLate:
      process_.Kill();
      throw ConfigError(fmt::format("{}: rendering takes longer than {:.1f} s", origin, seconds));
    case RenderProcess::Outcome::kDied:
      process_.Kill();
      throw ConfigError(origin + ": the process that renders it died");
  }
  throw Error(origin + ": no outcome");
}

}  // namespace runahead::chat
