// Commands in several processes: the same answers as in one, and a process that is lost is named by all others.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>
#include <sstream>

#include "link/ucx/ucx_fabric.h"
#include "tests/cli/conversation.h"
#include "tests/cli/fixture.h"
#include "wire/socket.h"

namespace runahead {
namespace {

class Group : public CliTest {
 protected:
  void SetUp() override {
    if (!BuiltWithUcx()) GTEST_SKIP() << "this build has no UCX";
    try {
      (void)MakeUcxPort();
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }

  static std::vector<std::string> Launched(int ranks, const std::vector<std::string>& command) {
    std::vector<std::string> arguments = {"launch", "--ranks", std::to_string(ranks), "--grace", "20", "--"};
    arguments.insert(arguments.end(), command.begin(), command.end());
    return arguments;
  }

  /// `command` in `ranks` processes, which on a busy machine miss nobody.
  static Outcome Launch(int ranks, std::vector<std::string> command) {
    command.insert(command.end(), {"--lost-after", "60"});
    if (command.front() != "tune") command.insert(command.end(), {"--kv-memory", "4MB"});
    return Runahead(Launched(ranks, command));
  }

  /// Token ids, and ranks of the prompt phase, of `generate` with further arguments.
  struct Generated {
    Json ids;
    size_t members = 0;
  };
  static Generated Generate(int ranks, const std::vector<std::string>& more) {
    std::vector<std::string> command = {"generate", "--model", Model(),  "--prompt-ids", kPrompt,
                                        "-n",       "12",      "--json", "--lost-after", "60"};
    command.insert(command.end(), more.begin(), more.end());
    const Outcome outcome = Runahead(ranks == 1 ? command : Launched(ranks, command));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    if (outcome.exit_code != 0) return {};
    const Json json = Json::parse(outcome.out);  // and nothing but one object
    return {json.at("ids"), json.at("members").size()};
  }

  /// "id: token ids" of each of a batch's answers, sorted.
  static std::vector<std::string> IdsOf(const std::string& lines) {
    std::vector<std::string> answers;
    size_t begin = 0;
    for (size_t end = 0; (end = lines.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const Json answer = Json::parse(lines.substr(begin, end - begin));
      answers.push_back(answer.at("id").dump() + ": " + answer.at("ids").dump());
    }
    std::sort(answers.begin(), answers.end());
    return answers;
  }

  static constexpr const char* kPrompt =
      "5,77,3,200,41,8,90,17,66,250,11,9,120,33,44,55,61,72,83,94,105,116,127,138,149,160,171,182,193,204,215,226,"
      "237";
};

TEST_F(Group, GeneratesWhatOneProcessDoes) {
  const Json alone = Generate(1, {}).ids;
  ASSERT_EQ(alone.size(), 12U);
  for (const std::vector<std::string>& way : std::vector<std::vector<std::string>>{
           {"--strategy", "single"},
           {"--strategy", "runahead", "--topology", "chain"},
           {"--strategy", "runahead", "--topology", "direct", "--partition", "4,3,2"},
           {"--strategy", "tsp"},
           {"--strategy", "tsp-causal"}}) {
    const Generated generated = Generate(3, way);
    EXPECT_EQ(generated.ids, alone) << way[1];
    EXPECT_EQ(generated.members, way[1] == "single" ? 1U : 3U) << way[1];
  }
}

TEST_F(Group, HasSeveralRanksInEachProcess) {
  const Generated generated = Generate(2, {"--devices", "cpu:2", "--partition", "even"});
  EXPECT_EQ(generated.ids, Generate(1, {}).ids);
  EXPECT_EQ(generated.members, 4U);
}

TEST_F(Group, AnswersABatchAsOneProcessDoes) {
  std::string lines;
  for (int i = 0; i < 24; ++i) {
    std::vector<int> prompt;
    for (int at = 0; at < 3 + 7 * (i % 8); ++at) prompt.push_back((i % 3 * 50 + at * 7) % 256);
    lines +=
        Json{{"id", i}, {"prompt", prompt}, {"max_tokens", 1 + i % 13}, {"temperature", i % 2}, {"seed", i}}.dump() +
        "\n";
  }
  WriteFile(InFolder("requests"), lines);
  const auto ids = [](const Outcome& outcome) {
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return IdsOf(outcome.out);
  };
  const std::vector<std::string> batch = {"batch", InFolder("requests"), "--model", Model()};
  const auto alone = ids(Runahead(batch));
  EXPECT_EQ(alone.size(), 24U);
  EXPECT_EQ(ids(Launch(3, batch)), alone);
}

TEST_F(Group, NamesTheProcessAndTheFieldThatDiffer) {
  const std::string script =
      fmt::format("exec {} generate --model {} --prompt-ids 1,2,3 --dtype $([ $RANK = 1 ] && echo f32 || echo bf16)",
                  ProgramPath(), Model());
  const Outcome outcome = Runahead(Launched(3, {"sh", "-c", script}));
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  std::string host(256, '\0');
  ASSERT_EQ(::gethostname(host.data(), host.size() - 1), 0);
  host.resize(host.find('\0'));
  for (int rank = 0; rank < 3; ++rank) {
    const std::string line =
        fmt::format("[{}] runahead: process 1 on {} has dtype f32, process 0 has bf16\n", rank, host);
    EXPECT_NE(outcome.err.find(line), std::string::npos) << outcome.err;
  }
}

TEST_F(Group, BenchesWhatSeveralProcessesDo) {
  const Outcome outcome = Launch(3, {"bench", "--model", Model(), "--contexts", "40", "--topologies", "chain,direct",
                                     "--ranks", "2,3", "--repeats", "1", "--decode-tokens", "3", "--json",
                                     InFolder("bench.json"), "--timeline", InFolder("bench.svg")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const Json results = Json::parse(ReadFile(InFolder("bench.json"))).at("results");
  EXPECT_EQ(results.size(), 9U);
  for (const Json& result : results) {
    EXPECT_EQ(result.at("logit_difference"), 0) << result;
    EXPECT_EQ(result.at("token_ms").size(), 3U) << result;
  }
  EXPECT_NE(ReadFile(InFolder("bench.svg")).find("rank 1"), std::string::npos);
}

TEST_F(Group, TunesAndPlansByWhatItFound) {
  const std::string tuned = InFolder("tuned");
  const Outcome outcome =
      Launch(2, {"tune", "--model", Model(), "--contexts", "48", "--repeats", "1", "--profile", "--search", "--check",
                 "--partitions", "even", "--topologies", "chain", "--tuned", tuned});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* line : {"of another process, rank 1", "link 1 -> 0: ", "partition table: ", "tsp, 2 ranks"}) {
    EXPECT_NE(outcome.out.find(line), std::string::npos) << line << "\n" << outcome.out;
  }
  const Outcome links =
      Launch(2, {"tune", "--model", Model(), "--contexts", "48", "--repeats", "2", "--links", "--tuned", tuned});
  EXPECT_EQ(links.exit_code, 0) << links.err;
  EXPECT_NE(links.out.find("link 0 -> 1: "), std::string::npos) << links.out;
  const Outcome bench = Launch(2, {"bench", "--model", Model(), "--contexts", "48", "--partitions", "searched",
                                   "--strategies", "runahead", "--repeats", "1", "--tuned", tuned});
  EXPECT_EQ(bench.exit_code, 0) << bench.err;
}

TEST_F(Group, OtherCommandsSayWhatToDo) {
  const Outcome outcome = Runahead(Launched(2, {"bench", "--model", Model(), "--suite", "paper"}));
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.err.find("say --devices cpu:2 instead, without a launcher"), std::string::npos) << outcome.err;
}

/// A batch on three processes that is cut short: its first answer has come, hundreds are to come.
class LostRank : public Group {
 protected:
  void SetUp() override {
    Group::SetUp();
    if (!IsSkipped()) WriteRequests(2000);
  }

  static void WriteRequests(int count) {
    std::string lines;
    for (int i = 0; i < count; ++i) {
      lines +=
          Json{{"id", i}, {"prompt", {i % 256, i / 256, 3, 4}}, {"max_tokens", i < 3 ? 1 : 90}, {"ignore_eos", true}}
              .dump() +
          "\n";
    }
    WriteFile(InFolder("requests"), lines);
  }

  /// Starts it, waits for the first answer, and sends rank `rank` a signal. Returns the exit code; Said(rank) is what
  /// the ranks said.
  static int Lose(int rank, int signal) {
    const std::string script = ScriptOf(fmt::format("--lost-after {}", signal == SIGSTOP ? 4 : 60));
    const std::vector<std::string> launch = {"launch", "--ranks", "3", "--grace", "10", "--", "sh", "-c", script};
    Conversation batch(ProgramPath(), launch);
    EXPECT_TRUE(Await([] { return !TextOf("answers").empty(); }));
    EXPECT_EQ(::kill(PidOf(rank), signal), 0);
    if (signal == SIGSTOP) {
      EXPECT_TRUE(Await([rank] { return AllTold(rank); }));
      (void)::kill(PidOf(rank), SIGKILL);
    }
    return batch.End();
  }

  /// What each rank runs. Its process id is in pid.RANK, what it says in err.RANK.
  static std::string ScriptOf(const std::string& flags) {
    for (const char* file : {"answers", "err.0", "err.1", "err.2"}) std::filesystem::remove(InFolder(file));
    return fmt::format(
        "echo $$ >{0}.$RANK; exec {1} batch {2} --model {3} --output {4} {6} --kv-memory 4MB --concurrency 3 "
        "2>>{5}.$RANK",
        InFolder("pid"), ProgramPath(), InFolder("requests"), Model(), InFolder("answers"), InFolder("err"), flags);
  }
  static pid_t PidOf(int rank) {
    return static_cast<pid_t>(std::stol(ReadFile(fmt::format("{}.{}", InFolder("pid"), rank))));
  }

  /// Whether it became true within a minute.
  static bool Await(const std::function<bool()>& happened) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!happened()) {
      if (std::chrono::steady_clock::now() >= until) return false;
      ::usleep(20'000);
    }
    return true;
  }
  static std::string TextOf(const std::string& name) {
    return std::filesystem::exists(InFolder(name)) ? ReadFile(InFolder(name)) : "";
  }
  static std::string Said(int rank) { return TextOf(fmt::format("err.{}", rank)); }
  static bool AllTold(int lost) {
    for (int rank = 0; rank < 3; ++rank) {
      if (rank != lost && Said(rank).find('\n') == std::string::npos) return false;
    }
    return true;
  }
  static void ExpectAllTold(int lost, const std::string& why) {
    for (int rank = 0; rank < 3; ++rank) {
      if (rank == lost) continue;
      const std::string said = Said(rank);
      EXPECT_NE(said.find(fmt::format("rank {} on ", lost)), std::string::npos) << rank << ": " << said;
      EXPECT_NE(said.find(why), std::string::npos) << rank << ": " << said;
      EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    }
  }
};

/// Ports that the process listens at.
std::vector<uint16_t> PortsOf(pid_t pid) {
  const std::string process = fmt::format("/proc/{}/", pid);
  std::set<std::string> sockets;
  for (const auto& entry : std::filesystem::directory_iterator(process + "fd")) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone);
    if (target.starts_with("socket:[")) sockets.insert(target.substr(8, target.size() - 9));
  }
  std::vector<uint16_t> ports;
  for (const char* const table : {"net/tcp", "net/tcp6"}) {
    std::ifstream lines(process + table);
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      const std::vector<std::string> fields{std::istream_iterator<std::string>(words), {}};
      const bool listens = fields.size() > 9 && fields[3] == "0A";
      if (!listens || !sockets.contains(fields[9])) continue;
      ports.push_back(static_cast<uint16_t>(std::stoul(fields[1].substr(fields[1].rfind(':') + 1), nullptr, 16)));
    }
  }
  return ports;
}

// On one host only the first process listens, and whoever knows no secret disturbs nobody there.
TEST_F(LostRank, StrangersAreTurnedAway) {
  if (std::getenv("UCX_TLS") != nullptr) GTEST_SKIP() << "UCX_TLS may ask for ports";
  constexpr int kRequests = 60;
  WriteRequests(kRequests);
  const Outcome alone = Runahead({"batch", InFolder("requests"), "--model", Model(), "--threads-per-rank", "1"});
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const std::vector<std::string> launch = {
      "launch", "--ranks", "3", "--", "sh", "-c", ScriptOf("--on-failure replan --lost-after 60")};
  Conversation batch(ProgramPath(), launch);
  EXPECT_TRUE(Await([] { return !TextOf("answers").empty(); }));
  ASSERT_EQ(::kill(PidOf(0), SIGSTOP), 0);  // the batch does not end before all strangers have come
  EXPECT_EQ(PortsOf(PidOf(1)), std::vector<uint16_t>{});
  EXPECT_EQ(PortsOf(PidOf(2)), std::vector<uint16_t>{});
  const std::vector<uint16_t> ports = PortsOf(PidOf(0));
  EXPECT_EQ(ports.size(), 1U);
  std::vector<Socket> strangers;
  for (const uint16_t port : ports) {
    for (const std::string& words : {std::string(), std::string(5000, 'x'), "RUNWIRE1" + std::string(3000, 'y'),
                                     std::string("GET / HTTP/1.1\r\n\r\n"), std::string("RUNW")}) {
      strangers.push_back(Socket::Connect({"127.0.0.1", port, false}, After(std::chrono::seconds(10))));
      (void)strangers.back().WriteAll(words, After(std::chrono::seconds(10)));
    }
  }
  ASSERT_EQ(::kill(PidOf(0), SIGCONT), 0);
  EXPECT_EQ(batch.End(), 0) << Said(0);
  EXPECT_EQ(Said(0) + Said(1) + Said(2), "");
  EXPECT_EQ(IdsOf(TextOf("answers")), IdsOf(alone.out));
}

TEST_F(LostRank, KilledIsNamedByAllOthers) {
  EXPECT_NE(Lose(1, SIGKILL), 0);
  ExpectAllTold(1, " is lost: ");
}

TEST_F(LostRank, KilledFirstIsNamedByAllOthers) {
  EXPECT_NE(Lose(0, SIGKILL), 0);
  ExpectAllTold(0, " is lost: ");
}

TEST_F(LostRank, StoppedIsNamedByAllOthers) {
  EXPECT_NE(Lose(2, SIGSTOP), 0);
  ExpectAllTold(2, " is lost: no sign of life for ");
}

// One rank is killed and another stopped while a batch runs. Both are started again, and no answer is another.
TEST_F(LostRank, TheOthersGoOnAndItComesBack) {
  constexpr int kRequests = 60;
  WriteRequests(kRequests);
  const Outcome alone = Runahead({"batch", InFolder("requests"), "--model", Model(), "--threads-per-rank", "1"});
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const std::vector<std::string> launch = {"launch",     "--ranks", "3",
                                           "--restarts", "1000",    "--",
                                           "sh",         "-c",      ScriptOf("--on-failure replan --lost-after 4")};
  Conversation batch(ProgramPath(), launch);
  EXPECT_TRUE(Await([] { return !TextOf("answers").empty(); }));
  EXPECT_EQ(::kill(PidOf(1), SIGKILL), 0);
  EXPECT_TRUE(Await([] { return Said(0).find("rank 1 on ") != std::string::npos; }));
  const pid_t stopped = PidOf(2);
  EXPECT_EQ(::kill(stopped, SIGSTOP), 0);
  EXPECT_TRUE(Await([] {
    return Said(0).find("rank 2 on ") != std::string::npos || IdsOf(TextOf("answers")).size() == kRequests;
  }));
  (void)::kill(stopped, SIGKILL);
  EXPECT_EQ(batch.End(), 0) << Said(0);
  EXPECT_NE(Said(0).find("; the others go on\n"), std::string::npos) << Said(0);
  EXPECT_EQ(IdsOf(TextOf("answers")), IdsOf(alone.out));
}

}  // namespace
}  // namespace runahead
