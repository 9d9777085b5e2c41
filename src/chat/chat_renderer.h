// Conversations to text, as a model's chat template and transformers have it.
#pragma once

#include <filesystem>
#include <mutex>
#include <string>

#include "chat/chat_request.h"
#include "chat/chat_templates.h"
#include "chat/render_process.h"

namespace runahead::chat {

/// Renders with the real Jinja, in a process of its own: a model's template is a stranger's program. The process has
/// no network, bounded memory and time, and is kept between renderings and started again when it was lost. All
/// methods may be called from many threads; renderings follow each other.
class ChatRenderer {
 public:
  explicit ChatRenderer(ChatTemplates templates) : templates_(std::move(templates)) {}

  [[nodiscard]] const ChatTemplates& templates() const { return templates_; }

  /// Starts the process where none runs. Throws IoError saying what to install when Python or jinja2 is missing.
  void Start();

  /// The text of a conversation, valid UTF-8, at most 16 MB. Throws ConfigError within two seconds, or one second
  /// behind a start of the process that takes longer, when there is no such template, when the template refuses (its
  /// own words), is broken (its line), or takes more time or memory than a template may; and IoError as Start does.
  std::string Render(const ChatRequest& request);

 private:
  /// The process's answer to `message` within so many seconds. Throws ConfigError that opens with `origin`.
  std::string Ask(const std::string& message, double seconds, const std::string& origin);
  void StartLocked();

  ChatTemplates templates_;
  std::mutex mutex_;  // guards process_
  RenderProcess process_;
};

}  // namespace runahead::chat
