// `runahead chat`: conversations whose turns stand on the cache of the turns before.
#include <csignal>

#include "tests/cli/conversation.h"
#include "tests/cli/fixture.h"
#include "tests/report/well_formed.h"

namespace runahead {
namespace {

class ChatTest : public CliTest {
 protected:
  static std::string LongModel() {
    std::string model = InFolder("long");
    if (std::filesystem::exists(model)) return model;
    CopyOfModel("long");
    Json config = LoadJson(model + "/config.json");
    config["max_position_embeddings"] = 100'000;
    WriteFile(model + "/config.json", config.dump());
    return model;
  }

  static Outcome Chat(const std::string& input, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"chat", "--model", LongModel()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Runahead(arguments, {input, false, ""});
  }

  /// The answers to a script.
  static std::vector<Json> Answers(const std::string& input, std::vector<std::string> more) {
    more.emplace_back("--json");
    const Outcome outcome = Chat(input, more);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    std::vector<Json> answers;
    size_t begin = 0;
    for (size_t end = 0; (end = outcome.out.find('\n', begin)) != std::string::npos; begin = end + 1) {
      answers.push_back(Json::parse(outcome.out.substr(begin, end - begin)));
    }
    return answers;
  }

  /// Token ids as `tokenize` makes them.
  static std::vector<int> Ids(const std::string& text, bool begin) {
    std::vector<std::string> arguments = {"tokenize", "--model", LongModel(), "--json-lines"};
    if (!begin) arguments.emplace_back("--no-special");
    const Outcome outcome = Runahead(arguments, {Json(text).dump(), false, ""});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return Json::parse(outcome.out).get<std::vector<int>>();
  }

  static void Append(std::vector<int>& ids, const std::vector<int>& more) {
    ids.insert(ids.end(), more.begin(), more.end());
  }

  /// The ids of the likeliest answer to `prompt` alone.
  static Json Generated(const std::vector<int>& prompt, const std::string& tokens) {
    const std::string ids = Json(prompt).dump();
    const Outcome outcome = Runahead({"generate", "--model", LongModel(), "--prompt-ids",
                                      ids.substr(1, ids.size() - 2), "-n", tokens, "--json", "--stop", "\nUser:"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return Json::parse(outcome.out).at("ids");
  }
};

TEST_F(ChatTest, EachTurnGoesOnBehindTheCachedOnes) {
  WriteFile(InFolder("document.txt"), std::string(1000, 'd'));
  const std::vector<Json> answers = Answers(
      "first\nsecond\r\n\nthird", {"-n", "12", "--document", InFolder("document.txt"), "--system", "Be\\nbrief"});
  ASSERT_EQ(answers.size(), 3U);
  std::vector<int> said = Ids("Be\nbrief\n" + std::string(1000, 'd') + "\n", /*begin=*/true);
  std::string turn_end;
  size_t computed = 0;  // tokens whose rows the turns before have computed
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::vector<std::string> lines = {"first", "second", "third"};
    Append(said, Ids(turn_end + "User: " + lines[i] + "\nAssistant:", false));
    turn_end = "\n";
    EXPECT_EQ(answers[i].at("prompt_tokens"), said.size());
    EXPECT_EQ(answers[i].at("cached_tokens"), computed);
    EXPECT_EQ(answers[i].at("ids"), Generated(said, "12"));
    Append(said, answers[i].at("ids").get<std::vector<int>>());
    computed = said.size() - 1;  // the last token needed no row
  }
}

TEST_F(ChatTest, ClearBeginsAnewAndExitEnds) {
  const std::vector<Json> answers = Answers("first\n/clear\nfirst\n/exit\nmore\n", {"-n", "5"});
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(answers[0].at("ids"), answers[1].at("ids"));
  EXPECT_EQ(answers[0].at("prompt_tokens"), answers[1].at("prompt_tokens"));
}

TEST_F(ChatTest, AScriptsAnswersAreOnStdout) {
  const std::vector<Json> answers = Answers("first\nsecond\n", {"-n", "8", "--stop", "e"});
  const Outcome outcome = Chat("first\nsecond\n", {"-n", "8", "--stop", "e"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.err, "") << "nothing for people when stderr is no terminal";
  std::string expected;
  for (const Json& answer : answers) {
    const auto text = answer.at("text").get<std::string>();
    expected += text.substr(std::min(text.find_first_not_of(' '), text.size())) + "\n";
  }
  EXPECT_EQ(outcome.out, expected);
}

TEST_F(ChatTest, WhatAnAnswerStoppedAtIsNoPartOfTheConversation) {
  std::vector<std::string> flags = {"-n", "40", "--temperature", "1", "--seed", ""};
  const size_t seed_at = flags.size() - 1;
  for (char c = 'a'; c <= 'z'; ++c) flags.insert(flags.end(), {"--stop", std::string(1, c)});
  for (int seed = 0; seed < 30; ++seed) {
    flags[seed_at] = std::to_string(seed);
    const std::vector<Json> answers = Answers("first\nsecond\n", flags);
    ASSERT_EQ(answers.size(), 2U);
    const size_t tokens = answers[0].at("ids").size();
    if (answers[0].at("finish") != "stop" || tokens < 2) continue;
    EXPECT_LT(answers[0].at("ids").back(), 256) << "every byte is a token";
    const size_t turn = Ids("\nUser: second\nAssistant:", /*begin=*/false).size();
    EXPECT_EQ(answers[1].at("prompt_tokens"), answers[0].at("prompt_tokens").get<size_t>() + tokens - 1 + turn);
    return;
  }
  FAIL() << "no seed draws a letter";
}

TEST_F(ChatTest, InterruptStopsTheAnswerAlone) {
  Conversation chat(ProgramPath(), {"chat", "--model", LongModel(), "-n", "90000", "--stop-id", "511"});
  chat.Write("abc\n");
  size_t bytes = chat.ReadBlock().size();
  EXPECT_GT(bytes, 0U);
  chat.Signal(SIGINT);
  chat.Write("/exit\n");
  for (std::string block; !(block = chat.ReadBlock()).empty();) bytes += block.size();
  EXPECT_EQ(chat.End(), 0);
  EXPECT_LT(bytes, 90'000U) << "the answer went on to its end";
}

/// The model with `text` for its chat template, and conversations in its form.
class ChatTemplateTest : public ChatTest {
 protected:
  ChatTemplateTest() { std::filesystem::remove(Template()); }
  ~ChatTemplateTest() override { std::filesystem::remove(Template()); }

  static std::string Template() { return LongModel() + "/chat_template.jinja"; }

  static Json Message(const std::string& role, const Json& content) { return {{"role", role}, {"content", content}}; }

  /// The ids of what `messages` become, as `tokenize --chat` has them.
  static std::vector<int> Rendered(const Json& messages) {
    const Json conversation = {{"messages", messages}, {"add_generation_prompt", true}};
    const Outcome outcome =
        Runahead({"tokenize", "--model", LongModel(), "--chat", "-"}, {conversation.dump(), false, ""});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return Json::parse(outcome.out).get<std::vector<int>>();
  }
};

TEST_F(ChatTemplateTest, TurnsGoOnInTheTemplatesForm) {
  WriteFile(Template(),
            "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}");
  WriteFile(InFolder("text.txt"), "a log");
  const std::vector<Json> answers = Answers("first\nsecond\n/clear\nfirst\n",
                                            {"-n", "12", "--system", "Be brief", "--document", InFolder("text.txt")});
  ASSERT_EQ(answers.size(), 3U);
  const Json opening = {Message("system", "Be brief"), Message("user", "a log\n\nfirst")};
  std::vector<int> said = Rendered(opening);
  EXPECT_EQ(answers[0].at("prompt_tokens"), said.size());
  EXPECT_EQ(answers[0].at("ids"), Generated(said, "12"));
  Append(said, answers[0].at("ids").get<std::vector<int>>());
  const size_t computed = said.size() - 1;  // the last token needed no row
  Append(said, Ids("\n<user>second\n<assistant>", /*begin=*/false));
  EXPECT_EQ(answers[1].at("prompt_tokens"), said.size());
  EXPECT_EQ(answers[1].at("cached_tokens"), computed);
  EXPECT_EQ(answers[1].at("ids"), Generated(said, "12"));
  EXPECT_EQ(answers[2].at("ids"), answers[0].at("ids"));
}

TEST_F(ChatTemplateTest, ATemplateMayChangeEarlierTurns) {
  WriteFile(Template(), "{% for m in messages %}{{ m.role if m.role != 'user' else m.content }};{% endfor %}>");
  const std::vector<Json> answers = Answers("first\nsecond\n", {"-n", "12"});
  ASSERT_EQ(answers.size(), 2U);
  const Json messages = {Message("user", "first"), Message("assistant", ""), Message("user", "second")};
  EXPECT_EQ(answers[1].at("prompt_tokens"), Rendered(messages).size());
  EXPECT_EQ(answers[1].at("ids"), Generated(Rendered(messages), "12"));
}

TEST_F(ChatTemplateTest, FlagsStandInsteadOfIt) {
  const std::vector<Json> without = Answers("first\n", {"-n", "5", "--user-prefix", "User: "});
  WriteFile(Template(), "{{ raise_exception('no turns') }}");
  const std::vector<Json> with = Answers("first\n", {"-n", "5", "--user-prefix", "User: "});
  ASSERT_EQ(with.size(), 1U);
  EXPECT_EQ(with[0].at("ids"), without.at(0).at("ids"));
  const Outcome refused = Chat("first\n", {});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("chat_template.jinja: no turns"), std::string::npos) << refused.err;
  const Outcome bare =
      RunProgram("/usr/bin/env", {"PATH=" + InFolder(""), ProgramPath(), "chat", "--model", LongModel()});
  EXPECT_EQ(bare.exit_code, 2);
  EXPECT_NE(bare.err.find("apt install python3-jinja2"), std::string::npos) << bare.err;
}

TEST_F(ChatTest, BadInput) {
  const auto refused = [](const Outcome& outcome, const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(report::Count(outcome.err, "\n"), 1) << outcome.err;
    for (const std::string& part : parts) EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
  };
  refused(Chat("", {"--turn-end", "a\\q"}), {"--turn-end", "'a\\q'"});
  refused(Chat("", {"--user-prefix", "\\"}), {"--user-prefix", "'\\'"});
  refused(Chat("", {"--document", InFolder("none")}), {InFolder("none")});
  WriteFile(InFolder("long.txt"), std::string(kContext, 'x'));
  refused(Runahead({"chat", "--model", Model(), "--document", InFolder("long.txt")}),
          {"--document", "context of 96"});
  refused(Runahead({"chat", "--model", Model()}, {std::string(kContext, 'x') + "\n", false, ""}),
          {"context of 96", "/clear"});
  refused(Chat("a\xFF\n", {}), {"UTF-8"});
  const std::string wordless = CopyOfModel("wordless");
  std::filesystem::remove(wordless + "/tokenizer.json");
  refused(Runahead({"chat", "--model", wordless}), {wordless, "no tokenizer"});
}

}  // namespace
}  // namespace runahead
