// Conversations become, byte for byte, what transformers' apply_chat_template makes of them
// (tools/make_chat_goldens.py).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "base/source_dir.h"
#include "runahead/error.h"
#include "tests/chat/rendering.h"

namespace runahead::chat {
namespace {

std::filesystem::path Goldens() { return std::filesystem::path(SourceDir()) / "tests/chat/goldens"; }

std::vector<std::string> Conversations() {
  const std::string text = ReadFile(Goldens() / "conversations.jsonl");
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    lines.push_back(text.substr(begin, end - begin));
  }
  return lines;
}

/// The text, or null where it is refused.
Json Rendered(ChatRenderer& renderer, const std::string& text, const std::string& conversation) {
  try {
    return renderer.Render(WithTemplate(text, conversation));
  } catch (const ConfigError&) {
    return nullptr;
  }
}

/// `text` with the dates of today that `chat_template` prints as their formats.
std::string Undated(std::string text, const std::string& chat_template) {
  for (const char* form : {"%Y-%m-%d", "%d %b %Y"}) {
    if (chat_template.find(form) == std::string::npos) continue;
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    ::localtime_r(&now, &parts);
    std::array<char, 64> date{};
    const std::string today(date.data(), std::strftime(date.data(), date.size(), form, &parts));
    for (size_t at = 0; (at = text.find(today, at)) != std::string::npos;) text.replace(at, today.size(), form);
  }
  return text;
}

/// Bytes and FNV-1a.
std::string Digest(const std::string& text) {
  uint64_t value = 0xcbf29ce484222325;
  for (const char byte : text) value = (value ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return fmt::format("{} {:016x}", text.size(), value);
}

TEST(ChatGoldens, OwnTemplates) {
  ChatRenderer renderer = NewRenderer();
  const std::vector<std::string> conversations = Conversations();
  const Json golden = LoadJson(Goldens() / "own.json");
  ASSERT_EQ(golden.size(), 3U);
  for (const auto& [name, texts] : golden.items()) {
    const std::string text = ReadFile(Goldens() / "templates" / (name + ".jinja"));
    ASSERT_EQ(texts.size(), conversations.size());
    for (size_t i = 0; i < conversations.size(); ++i) {
      EXPECT_EQ(Rendered(renderer, text, conversations[i]), texts[i]) << name << ", conversation " << i;
    }
  }
}

/// The unpacked chat_templates.tar.xz in `folder`; an empty path where it cannot be had.
std::filesystem::path FurtherTemplates(const TemporaryFolder& folder) {
  const char* assets = std::getenv("RUNAHEAD_ASSETS");
  const std::filesystem::path archive =
      (assets != nullptr ? std::filesystem::path(assets) : std::filesystem::path(SourceDir()) / "../shared/assets") /
      "chat_templates.tar.xz";
  if (!std::filesystem::exists(archive)) return {};
  const std::string command = "tar xf '" + archive.string() + "' -C '" + folder / "" + "'";
  return std::system(command.c_str()) == 0 ? std::filesystem::path(folder / "chat_templates")
                                           : std::filesystem::path();
}

TEST(ChatGoldens, TemplatesOfModels) {
  const TemporaryFolder folder;
  const std::filesystem::path templates = FurtherTemplates(folder);
  if (templates.empty()) GTEST_SKIP() << "no shared assets";
  ChatRenderer renderer = NewRenderer();
  const std::vector<std::string> conversations = Conversations();
  const Json golden = LoadJson(Goldens() / "further.json");
  ASSERT_EQ(golden.size(), 46U);
  for (const auto& [name, digests] : golden.items()) {
    const std::string text = ReadFile(templates / (name + ".jinja"));
    for (size_t i = 0; i < conversations.size(); ++i) {
      const Json rendered = Rendered(renderer, text, conversations[i]);
      const Json digest = rendered.is_null() ? Json() : Json(Digest(Undated(rendered.get<std::string>(), text)));
      EXPECT_EQ(digest, digests.at(i)) << name << ", conversation " << i << ": " << rendered;
    }
  }
}

}  // namespace
}  // namespace runahead::chat
