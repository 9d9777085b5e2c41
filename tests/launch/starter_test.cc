// Ranks that are shells.
#include "launch/starter.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "runahead/error.h"
#include "tests/cli/process.h"

namespace runahead {
namespace {

using std::chrono::milliseconds;

struct Started {
  int code = 0;
  std::vector<std::string> said;  // sorted
};

Started Start(StartOptions options, const std::string& script) {
  options.command = {"sh", "-c", script};
  Started started;
  started.code = StartRanks(options, [&](std::string_view line) { started.said.emplace_back(line); });
  std::sort(started.said.begin(), started.said.end());
  return started;
}

using Lines = std::vector<std::string>;

TEST(Starter, TellsEveryRankItsPlaceAndOneSecret) {
  const TemporaryFolder folder;
  const std::string out = folder / "out";
  const Started started = Start({.ranks = 3, .command = {}, .hosts = {}},
                                "echo $RANK of $WORLD_SIZE, local $LOCAL_RANK, at $MASTER_ADDR >&2; "
                                "stat -Lc %a $RUNAHEAD_SECRET_FILE >" +
                                    out + ".$RANK; cat $RUNAHEAD_SECRET_FILE >>" + out +
                                    ".$RANK; "
                                    "echo $MASTER_PORT >>" +
                                    out + ".$RANK");
  EXPECT_EQ(started.code, 0);
  EXPECT_EQ(started.said, (Lines{"[0] 0 of 3, local 0, at 127.0.0.1", "[1] 1 of 3, local 1, at 127.0.0.1",
                                 "[2] 2 of 3, local 2, at 127.0.0.1"}));
  const std::string zero = ReadFile(out + ".0");
  EXPECT_EQ(zero.substr(0, 4), "600\n");
  EXPECT_GT(zero.size(), 68U);
  EXPECT_EQ(ReadFile(out + ".1"), zero);
  EXPECT_EQ(ReadFile(out + ".2"), zero);
}

TEST(Starter, NamesWhoFailedAndEndsTheOthers) {
  const auto begin = std::chrono::steady_clock::now();
  const Started started = Start(
      {.ranks = 3, .command = {}, .hosts = {}, .grace = milliseconds(100)},
      "[ $RANK != 1 ] || exit 7; [ $RANK != 2 ] || trap '' TERM; exec >&- 2>&-; sleep 60 & wait; wait; sleep 60");
  EXPECT_EQ(started.code, 7);
  EXPECT_EQ(started.said, Lines{"rank 1 ended with exit code 7"});
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(Starter, StartsAFailedRankAgain) {
  const TemporaryFolder folder;
  const std::string came = folder / "came";
  ASSERT_EQ(::mkfifo(came.c_str(), 0600), 0);
  StartOptions options{.ranks = 2, .command = {}, .hosts = {}};
  options.restarts = 1;
  const Started started = Start(options, "if [ $RANK = 0 ]; then exec 3<>" + came +
                                             "; [ $(head -c 2 <&3 | wc -c) = 2 ]; exit $?; fi; printf x >" + came +
                                             "; [ -e " + came + ".again ] || { touch " + came + ".again; exit 7; }");
  EXPECT_EQ(started.code, 0);
  EXPECT_EQ(started.said, Lines{"rank 1 ended with exit code 7, and is started again"});
}

TEST(Starter, NamesTheSignal) {
  const Started started = Start({.ranks = 1, .command = {}, .hosts = {}}, "kill -9 $$");
  EXPECT_EQ(started.code, 137);
  EXPECT_EQ(started.said, Lines{"rank 0 was killed by signal 9 (Killed)"});
}

TEST(Starter, SaysThatACommandIsMissing) {
  StartOptions options{.ranks = 1, .command = {"/no/such/program"}, .hosts = {}};
  Lines said;
  EXPECT_EQ(StartRanks(options, [&](std::string_view line) { said.emplace_back(line); }), 127);
  std::sort(said.begin(), said.end());
  EXPECT_EQ(said, (Lines{"[0] cannot be started: No such file or directory", "rank 0 ended with exit code 127"}));
}

TEST(Starter, PassesSignalsOn) {
  const TemporaryFolder folder;
  const std::string ready = folder / "ready";
  ASSERT_EQ(::mkfifo(ready.c_str(), 0600), 0);
  // The one that reads what both wrote asks this process to end. It keeps the pipe open for writing too: between the
  // two writers it would end otherwise.
  const Started started =
      Start({.ranks = 3, .command = {}, .hosts = {}},
            "sleep 60 & p=$!; trap 'echo asked >&2; kill $p; exit 0' TERM; if [ $RANK = 0 ]; then exec 3<>" + ready +
                "; [ $(head -c 2 <&3 | wc -c) = 2 ] && kill -TERM $PPID; else printf x >" + ready + "; fi; wait $p");
  EXPECT_EQ(started.code, 128 + SIGTERM);
  EXPECT_EQ(started.said, (Lines{"[0] asked", "[1] asked", "[2] asked"}));
}

// A shell in place of ssh runs here what the others would run there.
TEST(Starter, ReachesHostsWithTheSecretOnStdin) {
  const TemporaryFolder folder;
  const std::string ssh = folder / "ssh";
  const std::string log = folder / "log";
  std::ofstream(ssh) << "#!/bin/sh\necho \"$1 $2 $3 $4\" >>" << log << "; exec sh -c \"$5\"\n";
  ASSERT_EQ(::chmod(ssh.c_str(), 0700), 0);
  StartOptions options{.ranks = 2, .command = {}, .hosts = {"boxa", "boxb"}, .ssh = ssh};
  const Started started = Start(options,
                                "echo \"it's $RANK of $WORLD_SIZE, local $LOCAL_RANK, at $MASTER_ADDR, secret "
                                "$(wc -c <$RUNAHEAD_SECRET_FILE) $(stat -c %a $RUNAHEAD_SECRET_FILE)\" >&2");
  EXPECT_EQ(started.code, 0);
  EXPECT_EQ(started.said, (Lines{"[0] it's 0 of 2, local 0, at boxa, secret 64 600",
                                 "[1] it's 1 of 2, local 0, at boxa, secret 64 600"}));
  const std::string called = ReadFile(log);
  EXPECT_NE(called.find("-o BatchMode=yes -- boxa\n"), std::string::npos) << called;
  EXPECT_NE(called.find("-o BatchMode=yes -- boxb\n"), std::string::npos) << called;
}

TEST(Hosts, AreReadWithTheirSlots) {
  EXPECT_EQ(ParseHosts("# two boxes\na slots=2\n\n b\r\nc  slots=1 # third", "hosts"), (Lines{"a", "a", "b", "c"}));
  for (const char* wrong : {"", "# none\n", "a slots=0", "a slots=x", "a 2", "-oProxyCommand=x"}) {
    EXPECT_THROW((void)ParseHosts(wrong, "hosts"), ConfigError) << wrong;
  }
}

}  // namespace
}  // namespace runahead
