// OpenAI's API on an engine, without sockets.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "chat/chat_renderer.h"
#include "protocol/http_call.h"
#include "protocol/service.h"
#include "runahead/engine.h"
#include "runahead/model.h"
#include "runahead/tokenizer.h"

namespace runahead::protocol {

struct ApiOptions {
  std::string model_name;    // the name that clients ask for; empty: the folder's
  std::string no_tokenizer;  // the reason why there is no tokenizer, as "DIR: the folder has no tokenizer"
  std::string no_chat;       // the reason why there is nothing that renders conversations
};

/// Serves /v1/models, /v1/completions, /v1/chat/completions, /tokenize, /detokenize, /runahead/state and
/// /openapi.json, which describes them. Thread-safe.
class Api {
 public:
  /// `tokenizer` may be null: then prompts are token ids. `renderer` may be null: then there is no chat.
  /// `on_end` may be empty; it is told of every choice that ended, by a thread of the engine: it must be brief and
  /// must not throw. Throws what EndTokens throws.
  Api(Engine engine, const Model& model, const std::shared_ptr<const Tokenizer>& tokenizer,
      std::unique_ptr<chat::ChatRenderer> renderer, ApiOptions options,
      std::function<void(const EndedRequest&)> on_end = {});
  /// Everything that was started must have been destroyed.
  ~Api();
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  /// Runs one request; never null. Takes as long as tokenizing and rendering do: not for a thread that serves
  /// sockets. Throws nothing: what goes wrong is the answer.
  std::unique_ptr<HttpCall> Start(HttpRequest request, std::shared_ptr<HttpAnswer> answer);

  /// What the engine does now, as /runahead/state has it. Never waits for the engine.
  [[nodiscard]] std::string StateJson() const;

 private:
  class Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace runahead::protocol
