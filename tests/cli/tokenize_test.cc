// `runahead tokenize`: lines in, lines out.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/source_dir.h"
#include "tests/cli/conversation.h"
#include "tests/cli/fixture.h"

namespace runahead {
namespace {

class TokenizeTest : public CliTest {
 protected:
  static Outcome Tokenize(const std::vector<std::string>& more, const std::string& input) {
    std::vector<std::string> arguments = {"tokenize", "--model", Model()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Runahead(arguments, {input, false, ""});
  }

  static std::string TokenizeWell(const std::vector<std::string>& more, const std::string& input) {
    const Outcome outcome = Tokenize(more, input);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  }
};

TEST_F(TokenizeTest, OneListPerLine) {
  EXPECT_EQ(TokenizeWell({"--no-special"}, "ab\n\nA"), "[97, 98]\n[]\n[65]\n");
  EXPECT_EQ(TokenizeWell({"--no-special"}, ""), "");
  EXPECT_EQ(TokenizeWell({"--no-special"}, "\n"), "[]\n");
  const Json with_special = Json::parse(TokenizeWell({}, "ab"));
  EXPECT_GT(with_special.size(), 2U) << "the made tokenizer begins texts with a token";
}

TEST_F(TokenizeTest, JsonLinesHoldNewlines) {
  EXPECT_EQ(TokenizeWell({"--no-special", "--json-lines"}, "\"a\\nb\"\n\"\"\n"), "[97, 10, 98]\n[]\n");
  EXPECT_EQ(TokenizeWell({"--decode", "--json-lines"}, "[97, 10, 98, 195, 169]\n"), "\"a\\nb\xC3\xA9\"\n");
}

TEST_F(TokenizeTest, DecodeTurnsItBack) {
  const std::string text = "The quick \xC3\xA9 fox\n  jumps\t\n\n\xF0\x9F\x98\x80 end\n";
  for (const std::vector<std::string>& flags : {std::vector<std::string>{}, {"--no-special"}}) {
    std::vector<std::string> decode = flags;
    decode.emplace_back("--decode");
    EXPECT_EQ(TokenizeWell(decode, TokenizeWell(flags, text)), text);
  }
}

TEST_F(TokenizeTest, KeepsTheOrderOfManyLines) {
  std::string input;
  std::string expected;
  for (int i = 0; i < 60000; ++i) {
    const char letter = static_cast<char>('a' + i % 26);
    const int letters = 1 + i % 13;
    std::vector<int> ids(static_cast<size_t>(letters), letter);
    input.append(static_cast<size_t>(letters), letter).append("\n");
    expected.append(fmt::format("[{}]\n", fmt::join(ids, ", ")));
  }
  WriteFile(InFolder("lines.txt"), input);
  EXPECT_EQ(TokenizeWell({"--no-special", "--file", InFolder("lines.txt")}, ""), expected);
}

// A carriage return is a character like others.
TEST_F(TokenizeTest, OnlyALineFeedEndsALine) {
  EXPECT_EQ(TokenizeWell({"--no-special"}, "a\r\n\r\nb\rc\r"), "[97, 13]\n[13]\n[98, 13, 99, 13]\n");
  EXPECT_EQ(TokenizeWell({"--decode"}, "[97, 13]\r\n[98]\n"), "a\r\nb\n");
}

// One line, and what came of it before the next line goes in.
TEST_F(TokenizeTest, PrintsLinesAsTheyCome) {
  Conversation tokenize(ProgramPath(), {"tokenize", "--model", Model(), "--no-special"});
  for (const std::string letter : {"a", "b", "c"}) {
    tokenize.Write(letter + "\n");
    EXPECT_EQ(tokenize.ReadLine(), fmt::format("[{}]", static_cast<int>(letter[0])));
  }
  EXPECT_EQ(tokenize.End(), 0);
}

// 60 MB of text in lines of every length, in much less memory.
TEST_F(TokenizeTest, TakesNoMoreMemoryForALongInput) {
  std::string input;
  for (int i = 0; input.size() < 60'000'000; ++i) input.append(static_cast<size_t>(i % 2000), 'x').append("\n");
  WriteFile(InFolder("long.txt"), input);
  input = {};
  const auto kib_of = [](const std::string& file) {
    Conversation tokenize(ProgramPath(), {"tokenize", "--model", Model(), "--no-special", "--file", file});
    while (!tokenize.ReadBlock().empty()) {
    }
    EXPECT_EQ(tokenize.End(), 0);
    return tokenize.peak_kib();
  };
  WriteFile(InFolder("short.txt"), "x\n");
  EXPECT_LE(kib_of(InFolder("long.txt")) - kib_of(InFolder("short.txt")), 100'000);
}

// A stack that does not fit into the address space stands for any limit on threads.
TEST_F(TokenizeTest, DoesWithoutThreadsThatTheSystemRefuses) {
  std::string lines;
  for (int i = 0; i < 20'000; ++i) lines += "the keeper of the harbour wrote\n";
  WriteFile(InFolder("lines.txt"), lines);
  const Outcome limited = RunProgram(
      "/bin/sh", {"-c", "ulimit -s 16000000; ulimit -v 8000000; exec \"$0\" tokenize --model \"$1\" --file \"$2\"",
                  ProgramPath(), Model(), InFolder("lines.txt")});
  EXPECT_EQ(limited.exit_code, 0) << limited.err;
  EXPECT_EQ(limited.err, "");
  EXPECT_EQ(limited.out, TokenizeWell({"--file", InFolder("lines.txt")}, ""));
}

TEST_F(TokenizeTest, ABadLineIsNamedBehindTheLinesBeforeIt) {
  const auto refused = [](const std::vector<std::string>& flags, const std::string& input, const std::string& part) {
    const Outcome outcome = Tokenize(flags, input);
    EXPECT_EQ(outcome.exit_code, 2) << input;
    const auto before = std::count(input.begin(), input.end(), '\n') - 1;  // the last line is the bad one
    EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), std::max<std::ptrdiff_t>(0, before));
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.err.find('\n') + 1, outcome.err.size());
  };
  refused({}, "good\nb\xC3(d\n", "stdin: line 2");
  refused({"--json-lines"}, "\"good\"\nbad\n", "stdin: line 2");
  refused({"--json-lines"}, "[1]\n", "stdin: line 1");
  refused({"--json-lines"}, "\"\\ud800\"\n", "stdin: line 1");
  refused({"--decode"}, "[1]\n{}\n", "stdin: line 2");
  refused({"--decode"}, "[1.5]\n", "1.5");
  refused({"--decode"}, "[-1]\n", "-1");
  refused({"--decode"}, "[2147483648]\n", "2147483648");
  refused({"--decode"}, "[2147483647]\n", "2147483647");
  refused({"--file", InFolder("missing")}, "", InFolder("missing"));
  EXPECT_EQ(Runahead({"tokenize", "--model", InFolder("nowhere")}).exit_code, 2);
}

TEST_F(TokenizeTest, AGgufFileHasATokenizerAndATemplate) {
  const std::string model = std::string(SourceDir()) + "/tests/model/gguf/qwen2.gguf";
  const std::string conversation = R"({"messages": [{"role": "user", "content": "hi"}]})";
  EXPECT_EQ(Runahead({"tokenize", "--model", model, "--chat", "-", "--text"}, {conversation, false, ""}).out,
            "user: hi</s>");
  const Outcome answer = Runahead({"generate", "--model", model, "--prompt", "Every rank", "-n", "4", "--devices",
                                   "cpu:2", "--weights", "int8", "--json"});
  ASSERT_EQ(answer.exit_code, 0) << answer.err;
  EXPECT_EQ(Json::parse(answer.out).at("weights"), "int8");
}

/// The tiny model with a chat template.
class TokenizeChatTest : public TokenizeTest {
 protected:
  static std::string ModelWith(const std::string& name, const std::string& text) {
    std::string model = CopyOfModel(name);
    WriteFile(model + "/chat_template.jinja", text);
    return model;
  }

  static Outcome OfChat(const std::string& model, const std::string& conversation,
                        const std::vector<std::string>& more) {
    WriteFile(InFolder("conversation.json"), conversation);
    std::vector<std::string> arguments = {"tokenize", "--model", model, "--chat", InFolder("conversation.json")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Runahead(arguments);
  }
};

TEST_F(TokenizeChatTest, ShowsWhatAConversationBecomes) {
  const std::string model = ModelWith("talker",
                                      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if "
                                      "add_generation_prompt %}>{% endif %}{{ more }}");
  const std::string conversation =
      R"({"messages": [{"role": "a", "content": "b\u00e9"}], "add_generation_prompt": true, "more": "c\n"})";
  const Outcome text = OfChat(model, conversation, {"--text"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_EQ(text.out, "a: b\xC3\xA9\n>c\n") << "byte for byte, with no line's end of our own";
  const Outcome ids = OfChat(model, conversation, {});
  EXPECT_EQ(ids.exit_code, 0) << ids.err;
  EXPECT_EQ(ids.out, "[97, 58, 32, 98, 195, 169, 10, 62, 99, 10]\n") << "no begin token beyond the template's own";
  EXPECT_EQ(Runahead({"tokenize", "--model", model, "--chat", "-", "--text"}, {conversation, false, ""}).out,
            text.out);
  std::filesystem::remove(model + "/tokenizer.json");
  EXPECT_EQ(OfChat(model, conversation, {"--text"}).out, text.out) << "a text needs no tokenizer";
}

TEST_F(TokenizeChatTest, OneLineSaysWhatIsWrong) {
  const auto refused = [](const Outcome& outcome, const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    for (const std::string& part : parts) EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
  };
  const std::string sound = R"({"messages": [{"role": "a", "content": "b"}]})";
  refused(OfChat(Model(), sound, {}), {Model(), "no chat template"});
  const std::string model = ModelWith("refuser", "\n{{ raise_exception('no\nroles') }}");
  refused(OfChat(model, sound, {}), {"conversation.json", "chat_template.jinja: no roles"});
  refused(OfChat(model, "{}", {}), {"conversation.json", "messages"});
  refused(OfChat(model, sound, {"--decode"}), {"--chat", "--decode"});
  refused(OfChat(model, sound, {"--file", "-"}), {"--chat", "--file"});
  refused(Tokenize({"--text"}, ""), {"--text", "--chat"});
  refused(Tokenize({"--chat", InFolder("none.json")}, ""), {InFolder("none.json")});
  refused(OfChat(model, sound, {}), {});
  refused(RunProgram("/usr/bin/env", {"PATH=" + InFolder(""), ProgramPath(), "tokenize", "--model", model, "--chat",
                                      InFolder("conversation.json")}),
          {"apt install python3-jinja2"});
}

}  // namespace
}  // namespace runahead
