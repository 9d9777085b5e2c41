// `runahead launch`: ranks of this program and of others.
#include <algorithm>

#include "tests/cli/fixture.h"

namespace runahead {
namespace {

TEST(Launch, RankZeroPrints) {
  const Outcome outcome =
      Runahead({"launch", "--ranks", "3", "--", "sh", "-c", "echo out $RANK; echo err $RANK >&2"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.out, "out 0\n");
  for (const char* line : {"[0] err 0\n", "[1] err 1\n", "[2] err 2\n"}) {
    EXPECT_NE(outcome.err.find(line), std::string::npos) << outcome.err;
  }
}

TEST(Launch, RunsThisProgramsOwnCommands) {
  const Outcome outcome = Runahead({"launch", "--ranks", "2", "--", "generate", "--help"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, Runahead({"generate", "--help"}).out);
}

TEST(Launch, EndsWithTheCodeOfTheRankThatFailed) {
  const Outcome outcome = Runahead(
      {"launch", "--ranks", "2", "--grace", "0.1", "--", "sh", "-c", "[ $RANK = 0 ] || exit 5; exec sleep 60"});
  EXPECT_EQ(outcome.exit_code, 5);
  EXPECT_EQ(outcome.err, "rank 1 ended with exit code 5\n");
}

TEST(Launch, RefusesWhatMakesNoSense) {
  const TemporaryFolder folder;
  WriteFile(folder / "hosts", "a slots=2\n");
  for (const auto& [arguments, says] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"launch", "--", "true"}, "--ranks or --hosts is wanted"},
           {{"launch", "--ranks", "2"}, "command"},
           {{"launch", "--ranks", "3", "--hosts", folder / "hosts", "--", "true"}, "has room for 2"}}) {
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_NE(outcome.err.find(says), std::string::npos) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

}  // namespace
}  // namespace runahead
