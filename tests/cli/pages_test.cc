// What the program says of itself: its version, its man page and its completion.
#include <algorithm>
#include <regex>
#include <set>

#include "tests/cli/fixture.h"

namespace runahead {
namespace {

std::string Printed(const std::vector<std::string>& arguments) {
  const Outcome outcome = Runahead(arguments);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  return outcome.out;
}

std::set<std::string> AllFlags() {
  const std::string help = Printed({"--help-all"});
  const std::regex flag("--[a-z][a-z-]*");
  std::set<std::string> flags;
  for (std::sregex_iterator at(help.begin(), help.end(), flag), end; at != end; ++at) flags.insert(at->str());
  return flags;
}

/// What bash offers for the last of `words`.
std::string Offered(const std::string& words) {
  const std::string script = "source <('" + ProgramPath() + "' --completion bash); COMP_WORDS=(" + words +
                             "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _runahead; echo -n \"${COMPREPLY[*]}\"";
  const Outcome outcome = RunProgram("/bin/bash", {"-c", script});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  return outcome.out;
}

TEST(PagesTest, VersionNamesCommitAndFeatures) {
  const std::string text = Printed({"--version"});
  const std::regex expected(
      "runahead \\d+\\.\\d+\\.\\d+( \\([0-9a-f]{12}(-dirty)?\\))?\nbuilt for cpu(, cuda)?(, nccl)?\nprocessor .*, "
      "bf16 "
      "(multiplied natively|computed in f32)\n");
  EXPECT_TRUE(std::regex_match(text, expected)) << text;
}

TEST(PagesTest, ManPageHasEveryCommandAndFlag) {
  std::string page = Printed({"--man"});
  EXPECT_TRUE(page.starts_with(".TH RUNAHEAD 1 "));
  for (const char* command : {"generate", "bench", "tune", "plan", "demo", "tokenize", "inspect", "make\\-model"}) {
    EXPECT_NE(page.find(std::string(".SS ") + command + "\n"), std::string::npos) << command;
  }
  page.erase(std::remove(page.begin(), page.end(), '\\'), page.end());
  const std::set<std::string> flags = AllFlags();
  EXPECT_GT(flags.size(), 40U);
  for (const std::string& flag : flags) EXPECT_NE(page.find("fB" + flag + "fR"), std::string::npos) << flag;
}

TEST(PagesTest, BashCompletes) {
  EXPECT_EQ(Offered("runahead to"), "tokenize");
  EXPECT_EQ(Offered("runahead plan --pres"), "--preset");
  EXPECT_EQ(Offered("runahead plan --preset 4x"), "4x4090-pcie");
  EXPECT_EQ(Offered("runahead generate --strategy tsp"), "tsp tsp-causal");
  EXPECT_EQ(Offered("runahead cache ver"), "verify");
  EXPECT_EQ(Offered("runahead inspect models/"), "");  // paths are bash's own
  EXPECT_EQ(Runahead({"--completion", "fish"}).exit_code, 2);
}

}  // namespace
}  // namespace runahead
