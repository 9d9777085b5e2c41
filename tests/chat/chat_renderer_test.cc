// Strangers' templates: what they may do, and what comes of those that do harm.
#include "chat/chat_renderer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "base/deadline.h"
#include "runahead/error.h"
#include "tests/chat/rendering.h"

namespace runahead::chat {
namespace {

constexpr const char* kConversation = R"({"messages": [{"role": "user", "content": "hi"}]})";
constexpr const char* kSound = "[{{ messages[0].content }}]";

class ChatRendererTest : public testing::Test {
 protected:
  std::string Render(const std::string& text, const std::string& conversation = kConversation) {
    return renderer_.Render(WithTemplate(text, conversation));
  }

  /// What the template `text` is refused with, within two seconds; a sound one is rendered afterwards.
  std::string Refusal(const std::string& text, const std::string& conversation = kConversation) {
    renderer_.Start();
    const Clock::time_point begin = Clock::now();
    std::string refusal = "not refused";
    try {
      (void)Render(text, conversation);
    } catch (const ConfigError& error) {
      refusal = error.what();
    }
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(2)) << text;
    EXPECT_EQ(refusal.find('\n'), std::string::npos) << refusal;
    EXPECT_EQ(Render(kSound), "[hi]") << "after " << text;
    return refusal;
  }

  void ExpectRefused(const std::string& text, const std::string& part) {
    const std::string refusal = Refusal(text);
    EXPECT_NE(refusal.find(part), std::string::npos) << text << "\n" << refusal;
  }

  ChatRenderer renderer_ = NewRenderer();
};

TEST_F(ChatRendererTest, SaysWhatATemplateSays) {
  EXPECT_EQ(Refusal("{{ raise_exception('Roles must\nalternate') }}"), "here: chat_template: Roles must alternate");
}

TEST_F(ChatRendererTest, NamesTheLineOfAMistake) {
  ExpectRefused("{{ 1 }}\n\n{% if %}", "chat_template: line 3: ");
  ExpectRefused("{{ 1 }}\n{{ messages[0].content.nothing.more }}", "line 2: 'str object' has no attribute 'nothing'");
  ExpectRefused("{{ 1 }}\n{{ 1 / 0 }}", "line 2: division by zero");
  ExpectRefused("{% include 'other' %}", "line 1");
}

TEST_F(ChatRendererTest, EndlessLoopsEnd) {
  const std::string loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
  ExpectRefused(loops, "longer than");
  ExpectRefused("{{ 9 ** (9 ** 9) }}", "longer than");
  ExpectRefused("{{ range(999999999) | list }}", "Range too big");
}

TEST_F(ChatRendererTest, MemoryIsBounded) {
  ExpectRefused("{{ ('x' * 900000000) | length }}", "memory");
  ExpectRefused(
      "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}{{ 1 }}",
      "memory");
}

TEST_F(ChatRendererTest, OutputIsBounded) {
  ExpectRefused("{{ 'x' * 20000000 }}", "longer than");
  EXPECT_EQ(Render("{{ 'x' * 10000000 }}").size(), 10'000'000U);
}

TEST_F(ChatRendererTest, DepthIsBounded) {
  ExpectRefused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deep");
  EXPECT_NE(Refusal("{{ " + std::string(100'000, '(') + "}}"), "not refused");
  EXPECT_NE(Refusal("{{ " + std::string(3'000, '[') + std::string(3'000, ']') + " }}"), "not refused");
  std::string ifs;
  for (int i = 0; i < 2'000; ++i) ifs += "{% if 1 %}";
  for (int i = 0; i < 2'000; ++i) ifs += "{% endif %}";
  EXPECT_NE(Refusal(ifs), "not refused");
}

TEST_F(ChatRendererTest, PythonsInsidesAreOutOfReach) {
  ExpectRefused("{{ ''.__class__.__mro__ }}", "unsafe");
  ExpectRefused("{{ ''['__class__']['__mro__'] }}", "unsafe");
  ExpectRefused("{{ (''|attr('__class__')).mro() }}", "unsafe");
  ExpectRefused("{{ raise_exception.__globals__.sys }}", "unsafe");
  ExpectRefused("{{ strftime_now.__globals__['os'] }}", "unsafe");
  ExpectRefused("{{ ''.encode.__self__.x }}", "unsafe");
  ExpectRefused("{{ messages.append(1) }}", "unsafe");
  ExpectRefused("{% set n = namespace(_x=1) %}", "_x");
  ExpectRefused("{{ dict.mro() }}", "mro");
  ExpectRefused("{{ open('/etc/passwd') }}", "undefined");
  EXPECT_EQ(Render("{{ ''.__class__ }}{{ ''['__class__'] }}{{ raise_exception.__globals__ }}"), "");
  EXPECT_EQ(Render("{{ '{0.__class__}'.format(1) }}{% set f = '{0.__class__}'.format %}{{ f(1) }}"), "");
}

TEST_F(ChatRendererTest, ATextThatIsNoUnicodeIsRefused) { ExpectRefused("{{ '\\ud800' }}", "surrogate"); }

TEST_F(ChatRendererTest, FinalMessagesThatCannotBeContinued) {
  const auto refusal = [this](const std::string& text, const std::string& message) {
    return Refusal(text, R"({"continue_final_message": true, "messages": [)" + message + "]}");
  };
  const std::string usual = "{{ messages[-1].content }}";
  EXPECT_NE(refusal(usual, R"({"role": "user"})").find("'content'"), std::string::npos);
  EXPECT_NE(refusal(usual, R"({"content": [{"type": "image"}]})").find("no text"), std::string::npos);
  EXPECT_NE(refusal("{{ messages[0].role }}", R"({"role": "a", "content": "b"})").find("does not read"),
            std::string::npos);
  EXPECT_NE(refusal("{{ messages[0].content | upper }}", R"({"content": "b"})").find("as it was given"),
            std::string::npos);
  EXPECT_EQ(Render(usual + "{{ 'end' }}",
                   R"({"continue_final_message": true, "messages": [{"content": [{"text": "a"}, {"text": "b "}]}]})"),
            "[{'text': 'a'}, {'text': 'b ");
  EXPECT_EQ(Render("{{ messages[0].thinking }}",
                   R"({"continue_final_message": "reasoning", "messages": [{"reasoning": "a "}]})"),
            "a ");
}

TEST_F(ChatRendererTest, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, i] {
      const std::string content = std::string(10'000, static_cast<char>('a' + i));
      for (int round = 0; round < 20; ++round) {
        EXPECT_EQ(Render(kSound, R"({"messages": [{"content": ")" + content + "\"}]}"), "[" + content + "]");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

/// Another PATH, as long as this lives.
class WithPath {
 public:
  explicit WithPath(const std::string& path) : before_(std::getenv("PATH")) { ::setenv("PATH", path.c_str(), 1); }
  ~WithPath() { ::setenv("PATH", before_.c_str(), 1); }
  WithPath(const WithPath&) = delete;
  WithPath& operator=(const WithPath&) = delete;

 private:
  std::string before_;
};

TEST_F(ChatRendererTest, SaysWhatIsMissing) {
  const TemporaryFolder folder;
  const auto missing = [this](const std::string& path) {
    const WithPath with(path);
    try {
      renderer_.Start();
    } catch (const IoError& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  const std::string needed = "python3 with jinja2 is needed for chat templates: apt install python3-jinja2";
  EXPECT_EQ(missing(folder / ""), needed);
  WriteFile(folder / "python3", "#!/bin/sh\nexit 1\n");
  std::filesystem::permissions(folder / "python3", std::filesystem::perms::owner_all);
  EXPECT_EQ(missing(folder / ""), needed) << "a Python without jinja2";
  EXPECT_EQ(missing((folder / "") + ":" + std::getenv("PATH")), "nothing") << "the next Python has it";
  EXPECT_EQ(Render(kSound), "[hi]");
}

/// The processes that this one has started.
std::vector<std::string> Children() {
  std::vector<std::string> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "stat");
    std::string line;
    if (!std::getline(file, line)) continue;
    std::istringstream fields(line.substr(line.rfind(')') + 1));
    std::string state;
    pid_t parent = 0;
    if (fields >> state >> parent && parent == ::getpid()) children.push_back(entry.path().filename());
  }
  return children;
}

TEST_F(ChatRendererTest, LeavesNoProcessBehind) {
  {
    ChatRenderer other = NewRenderer();
    other.Start();
    EXPECT_EQ(Children().size(), 1U);
  }
  EXPECT_EQ(Children().size(), 0U);
}

TEST_F(ChatRendererTest, TheProcessIsConfined) {
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "held";
  const int inherited = ::open((folder / "file").c_str(), O_RDONLY);  // survives exec
  renderer_.Start();
  ::close(inherited);
  ASSERT_EQ(Children().size(), 1U);
  const std::filesystem::path process = "/proc/" + Children()[0];
  std::set<std::string> descriptors;
  for (const auto& entry : std::filesystem::directory_iterator(process / "fd"))
    descriptors.insert(entry.path().filename());
  EXPECT_EQ(descriptors, (std::set<std::string>{"0", "1", "2"}));
  std::ifstream file(process / "limits");
  const std::string limits{std::istreambuf_iterator<char>(file), {}};
  for (const char* limit : {"Max address space +536870912 +536870912", "Max file size +0 +0", "Max processes +0 +0",
                            "Max core file size +0 +0"}) {
    EXPECT_TRUE(std::regex_search(limits, std::regex(limit))) << limit << "\n" << limits;
  }
  if (std::system("unshare --user --net true 2>/dev/null || unshare --net true 2>/dev/null") == 0) {
    EXPECT_NE(std::filesystem::read_symlink(process / "ns/net"), std::filesystem::read_symlink("/proc/self/ns/net"));
  }
}

// Somebody ends it from outside, such as a system that is out of memory.
TEST_F(ChatRendererTest, AProcessThatWasKilledIsStartedAgain) {
  renderer_.Start();
  for (const std::string& child : Children()) ::kill(std::stoi(child), SIGKILL);
  for (const std::string& child : Children()) {
    siginfo_t ended{};
    EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(std::stoi(child)), &ended, WEXITED | WNOWAIT), 0);
  }
  EXPECT_EQ(Render(kSound), "[hi]");
}

}  // namespace
}  // namespace runahead::chat
