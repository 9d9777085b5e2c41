// Which templates and special tokens a model's folder has, and what conversations may say.
#include "chat/chat_templates.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "chat/chat_request.h"
#include "runahead/error.h"
#include "tests/cli/process.h"

namespace runahead::chat {
namespace {

/// A model's folder that holds only what templates are read from.
class Folder {
 public:
  void Write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(folder_ / name).parent_path());
    WriteFile(folder_ / name, text);
  }
  void Configure(const Json& config) const { Write("tokenizer_config.json", config.dump()); }
  [[nodiscard]] ChatTemplates Templates() const { return ChatTemplates(folder_ / ""); }
  [[nodiscard]] std::string Chosen(const std::string& name = "", bool tools = false) const {
    return Templates().Choose(name, tools).text;
  }

 private:
  TemporaryFolder folder_;
};

/// What `work` is refused with.
template <typename Work>
std::string Refusal(const Work& work) {
  try {
    work();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "not refused";
}

void ExpectHas(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
}

TEST(ChatTemplates, AFolderWithoutAnyHasNone) {
  const Folder folder;
  EXPECT_TRUE(folder.Templates().empty());
  ExpectHas(Refusal([&] { (void)folder.Chosen(); }), {"no chat template"});
  folder.Configure({{"bos_token", "<s>"}, {"chat_template", nullptr}});
  EXPECT_TRUE(folder.Templates().empty());
  EXPECT_EQ(folder.Chosen("{{ bos_token }}"), "{{ bos_token }}") << "a template itself";
}

TEST(ChatTemplates, OneTextOrSeveralByName) {
  const Folder folder;
  folder.Configure({{"chat_template", "one"}});
  EXPECT_EQ(folder.Chosen(), "one");
  EXPECT_EQ(folder.Chosen("", /*tools=*/true), "one");
  const Json first = {{"name", "default"}, {"template", "d"}};
  const Json second = {{"name", "tool_use"}, {"template", "t"}};
  folder.Configure({{"chat_template", {first, second}}});
  EXPECT_EQ(folder.Chosen(), "d");
  EXPECT_EQ(folder.Chosen("", /*tools=*/true), "t");
  EXPECT_EQ(folder.Chosen("tool_use"), "t");
  EXPECT_EQ(folder.Chosen("default", /*tools=*/true), "d");
  ExpectHas(Refusal([&] { (void)folder.Chosen("rag"); }), {"default, tool_use", "'rag'"});
  folder.Configure({{"chat_template", Json::array({second})}});
  ExpectHas(Refusal([&] { (void)folder.Chosen(); }), {"tool_use"});
}

TEST(ChatTemplates, FilesStandInsteadOfTheConfig) {
  const Folder folder;
  folder.Configure({{"chat_template", "config"}});
  folder.Write("additional_chat_templates/rag.jinja", "rag");
  EXPECT_EQ(folder.Chosen("rag"), "rag");
  ExpectHas(Refusal([&] { (void)folder.Chosen(); }), {"rag"});
  folder.Write("chat_template.jinja", "file\n");
  folder.Write("additional_chat_templates/tool_use.jinja", "tools");
  folder.Write("additional_chat_templates/README.md", "no template");
  EXPECT_EQ(folder.Chosen(), "file\n");
  EXPECT_EQ(folder.Chosen("", /*tools=*/true), "tools");
  ExpectHas(Refusal([&] { (void)folder.Chosen("README"); }), {"default, rag, tool_use"});
}

TEST(ChatTemplates, SpecialTokensAreTextsOrObjects) {
  const Folder folder;
  folder.Configure({{"bos_token", "<s>"},
                    {"eos_token", {{"content", "</s>"}, {"lstrip", false}}},
                    {"pad_token", nullptr},
                    {"add_bos_token", true},
                    {"image_token", "<image>"},
                    {"extra_special_tokens", {{"end_of_call", "<call>"}}}});
  folder.Write("special_tokens_map.json", R"({"bos_token": "<begin>", "unk_token": {"content": "<unk>"}})");
  EXPECT_EQ(folder.Templates().special_tokens(), (Json{{"bos_token", "<begin>"},
                                                       {"eos_token", "</s>"},
                                                       {"unk_token", "<unk>"},
                                                       {"image_token", "<image>"},
                                                       {"end_of_call", "<call>"}}));
  folder.Configure({{"bos_token", "<s>"}, {"added_tokens_decoder", Json::object()}});
  EXPECT_EQ(folder.Templates().special_tokens(), (Json{{"bos_token", "<s>"}})) << "the map is of older folders";
}

TEST(ChatTemplates, BrokenFilesAreNamed) {
  const Folder folder;
  const auto refused = [&] { return Refusal([&] { (void)folder.Templates(); }); };
  folder.Configure({{"chat_template", 7}});
  ExpectHas(refused(), {"tokenizer_config.json", "chat_template", "7"});
  folder.Configure({{"chat_template", {{{"name", "default"}}}}});
  ExpectHas(refused(), {"tokenizer_config.json", "template"});
  folder.Write("tokenizer_config.json", "[]");
  ExpectHas(refused(), {"tokenizer_config.json"});
  folder.Configure(Json::object());
  folder.Write("chat_template.jinja", "a\xFF");
  ExpectHas(refused(), {"chat_template.jinja", "UTF-8"});
  EXPECT_THROW(ChatTemplates("/nonexistent"), IoError);
}

TEST(ChatRequest, SaysWhatIsWrong) {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    const std::string refusal = Refusal([&] { (void)ChatRequest::Parse(text, "here"); });
    EXPECT_TRUE(refusal.starts_with("here: ")) << refusal;
    ExpectHas(refusal, parts);
  };
  refused("{", {"JSON"});
  refused("[]", {"object"});
  refused("{}", {"messages"});
  refused(R"({"messages": []})", {"messages", "at least one"});
  refused(R"({"messages": "hi"})", {"messages", "hi"});
  refused(R"({"messages": ["hi"]})", {"messages", "hi"});
  refused(R"({"messages": [{}], "tools": {}})", {"tools", "{}"});
  refused(R"({"messages": [{}], "documents": [1]})", {"documents", "[1]"});
  refused(R"({"messages": [{}], "add_generation_prompt": 1})", {"add_generation_prompt", "1"});
  refused(R"({"messages": [{}], "continue_final_message": 1})", {"continue_final_message", "1"});
  refused(R"({"messages": [{}], "continue_final_message": true, "add_generation_prompt": true})",
          {"continue_final_message", "add_generation_prompt"});
  refused(R"({"messages": [{}], "chat_template": ["a"]})", {"chat_template", "a"});
}

TEST(ChatRequest, KeepsTheText) {
  const std::string text = R"({"z": 1.0, "messages": [{"b": 1, "a": 1e5}], "tools": [], "chat_template": "rag"})";
  const ChatRequest request = ChatRequest::Parse("\xEF\xBB\xBF" + text, "here");
  EXPECT_EQ(request.text, text);
  EXPECT_EQ(request.chat_template, "rag");
  EXPECT_TRUE(request.tools);
  EXPECT_FALSE(ChatRequest::Parse(R"({"messages": [{}], "tools": null})", "here").tools);
}

}  // namespace
}  // namespace runahead::chat
