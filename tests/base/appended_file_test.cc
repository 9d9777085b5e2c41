// Files that grow by whole lines.
#include "base/appended_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/output_file.h"
#include "runahead/error.h"
#include "tests/base/folder_test.h"

namespace runahead {
namespace {

namespace fs = std::filesystem;

class AppendedFileTest : public FolderTest {
 protected:
  static std::vector<std::string> LinesOf(AppendedFile& file, std::string* tail = nullptr) {
    std::vector<std::string> lines;
    const std::string rest = file.ReadLines([&](std::string_view line, int64_t number) {
      lines.emplace_back(line);
      EXPECT_EQ(number, static_cast<int64_t>(lines.size()));
    });
    if (tail != nullptr) *tail = rest;
    return lines;
  }

 private:
};

TEST_F(AppendedFileTest, GrowsByLines) {
  {
    AppendedFile file(In("a"));
    EXPECT_TRUE(LinesOf(file).empty());
    file.Append("one");
    EXPECT_EQ(ReadFile(In("a")), "one\n") << "there at once";
    file.Append("");
  }
  AppendedFile file(In("a"));
  EXPECT_EQ(LinesOf(file), (std::vector<std::string>{"one", ""}));
  file.Append("three");
  EXPECT_EQ(ReadFile(In("a")), "one\n\nthree\n");
}

TEST_F(AppendedFileTest, CutsWhatHasNoEnd) {
  WriteFile(In("a"), "one\ntwo\nthr");
  AppendedFile file(In("a"));
  std::string tail;
  EXPECT_EQ(LinesOf(file, &tail).size(), 2U);
  EXPECT_EQ(tail, "thr");
  EXPECT_EQ(ReadFile(In("a")), "one\ntwo\nthr") << "reading changes nothing";
  file.CutTail();
  file.Append("three");
  EXPECT_EQ(ReadFile(In("a")), "one\ntwo\nthree\n");
}

TEST_F(AppendedFileTest, ReadsLinesOverSeveralBlocks) {
  const std::string longest(300'000, 'x');
  WriteFile(In("a"), "a\n" + longest + "\nb\n" + longest);
  AppendedFile file(In("a"));
  std::string tail;
  EXPECT_EQ(LinesOf(file, &tail), (std::vector<std::string>{"a", longest, "b"}));
  EXPECT_EQ(tail, longest);
}

TEST_F(AppendedFileTest, BelongsToOneRun) {
  {
    const AppendedFile file(In("a"));
    EXPECT_NE(Refusal([&] { AppendedFile second(In("a")); }).find("another run"), std::string::npos);
  }
  EXPECT_EQ(Refusal([&] { AppendedFile second(In("a")); }), "");
}

TEST_F(AppendedFileTest, RefusesWhatCannotBeGoneOnWith) {
  EXPECT_NE(Refusal([] { AppendedFile file("/dev/null"); }).find("/dev/null"), std::string::npos);
  EXPECT_NE(Refusal([this] { AppendedFile file(In("")); }).find("Is a directory"), std::string::npos);
  EXPECT_NE(Refusal([this] { AppendedFile file(In("no/such")); }).find("No such file"), std::string::npos);
  ASSERT_EQ(::mkfifo(In("pipe").c_str(), 0600), 0);
  EXPECT_NE(Refusal([this] { AppendedFile file(In("pipe")); }).find("regular file"), std::string::npos);
}

TEST_F(AppendedFileTest, ALineBeyondALimitLeavesNoPart) {
  AppendedFile file(In("a"));
  file.Append("one");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{100, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string refusal = Refusal([&] { file.Append(std::string(200, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_NE(refusal.find("File too large"), std::string::npos) << refusal;
  EXPECT_EQ(ReadFile(In("a")), "one\n");
  file.Append("two");
  EXPECT_EQ(ReadFile(In("a")), "one\ntwo\n");
}

TEST_F(AppendedFileTest, IsNoInputAndNoOtherOutput) {
  WriteFile(In("input"), "text\n");
  fs::create_hard_link(In("input"), In("link"));
  OutputFiles outputs;
  outputs.Protect(In("input"));
  EXPECT_NE(Refusal([&] { (void)outputs.OpenToAppend("--output", In("link")); }).find("input"), std::string::npos);
  const AppendedFile file = outputs.OpenToAppend("--output", In("a"));
  EXPECT_NE(Refusal([&] { (void)outputs.Open("--json", In("a")); }).find("--output goes too"), std::string::npos);
}

}  // namespace
}  // namespace runahead
