// Files that appear whole or not at all, and outputs that may not be each other or an input.
#include "base/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "runahead/error.h"
#include "tests/base/folder_test.h"

namespace runahead {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public FolderTest {
 protected:
  /// Names of all that is in the folder.
  [[nodiscard]] std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  /// What a child process that runs `function` ends with, as waitpid tells it.
  template <typename Function>
  static int StatusOf(Function&& function) {
    const pid_t child = ::fork();
    if (child == 0) {
      function();
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }
};

TEST_F(OutputFileTest, AppearsWhenItIsCompleteAndCanBeReplaced) {
  OutputFile file(In("a"));
  file.Append("one ");
  EXPECT_EQ(Names(), std::vector<std::string>{});
  file.Append("two");
  file.Commit();
  EXPECT_EQ(ReadFile(In("a")), "one two");
  file.Write("three");
  EXPECT_EQ(ReadFile(In("a")), "three");
  EXPECT_EQ(Names(), std::vector<std::string>{"a"});
}

TEST_F(OutputFileTest, WhatIsNotCommittedLeavesNothing) {
  WriteFile(In("a"), "old");
  for (const char* name : {"a", "b"}) {
    OutputFile file(In(name));
    file.Append("new");
  }
  EXPECT_EQ(Names(), std::vector<std::string>{"a"});
  EXPECT_EQ(ReadFile(In("a")), "old");
}

TEST_F(OutputFileTest, AKilledProcessLeavesTheOldFile) {
  WriteFile(In("a"), "old");
  const int status = StatusOf([&] {
    OutputFile a(In("a"));
    OutputFile b(In("b"));
    a.Append("new");
    b.Append("new");
    ::raise(SIGKILL);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(ReadFile(In("a")), "old");
  std::vector<std::string> names = Names();
  std::erase_if(names, IsPartialFile);  // where the file system has no files without names
  EXPECT_EQ(names, std::vector<std::string>{"a"});
}

TEST_F(OutputFileTest, WhatCannotBeReplacedIsRefusedAtOnce) {
  constexpr uid_t kNobody = 65534;
  if (::geteuid() != 0) GTEST_SKIP() << "another user is needed";
  WriteFile(In("a"), "old");
  fs::permissions(In("a"), fs::perms(0666));
  fs::permissions(folder_, fs::perms(01777));  // sticky: only the owner may take a file's place
  const int status = StatusOf([&] {
    if (::setresuid(kNobody, kNobody, kNobody) != 0) ::_exit(1);
    const std::string refusal = Refusal([&] { OutputFile file(In("a")); });
    if (refusal != In("a").string() + ": cannot write: Operation not permitted") ::_exit(2);
    if (!Refusal([&] { OutputFile file(In("b")); }).empty()) ::_exit(3);
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(ReadFile(In("a")), "old");
}

TEST_F(OutputFileTest, AFileThatIsMountedIsRefusedAtOnce) {
  WriteFile(In("a"), "old");
  const int status = StatusOf([&] {
    const bool mounted = ::unshare(CLONE_NEWNS) == 0 &&
                         ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                         ::mount(In("a").c_str(), In("a").c_str(), nullptr, MS_BIND, nullptr) == 0;
    if (!mounted) ::_exit(77);
    const std::string refusal = Refusal([&] { OutputFile file(In("a")); });
    if (refusal.find(In("a").string() + ": cannot write: it is mounted") != 0) ::_exit(1);
  });
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "nothing can be mounted here";
  EXPECT_EQ(status, 0);
}

TEST_F(OutputFileTest, AFullDiskLeavesTheOldFile) {
  WriteFile(In("a"), "old");
  // The limit on sizes stands for the disk.
  const int status = StatusOf([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    OutputFile file(In("a"));
    const std::string reason = Refusal([&] { file.Write(std::string(1001, 'x')); });
    if (reason.find(In("a").string() + ": cannot write: File too large") != 0) ::_exit(1);
    file.Write("short enough");
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(ReadFile(In("a")), "short enough");
  EXPECT_EQ(Names(), std::vector<std::string>{"a"});
}

TEST_F(OutputFileTest, FollowsLinksAndKeepsTheMode) {
  WriteFile(In("target"), "old");
  fs::permissions(In("target"), fs::perms(0640));
  fs::create_symlink("target", In("link"));
  fs::create_symlink("nothing yet", In("dangling"));
  OutputFile(In("link")).Write("new");
  OutputFile(In("dangling")).Write("made");
  EXPECT_TRUE(fs::is_symlink(In("link")));
  EXPECT_EQ(ReadFile(In("target")), "new");
  EXPECT_EQ(fs::status(In("target")).permissions(), fs::perms(0640));
  EXPECT_EQ(ReadFile(In("nothing yet")), "made");
}

TEST_F(OutputFileTest, RefusesPlacesThatCannotBeWritten) {
  WriteFile(In("file"), "");
  EXPECT_NE(Refusal([&] { OutputFile file(In("no/such/a")); }).find("its folder does not exist"), std::string::npos);
  EXPECT_NE(Refusal([&] { OutputFile file(In("file") / "a"); }).find("is not a folder"), std::string::npos);
  EXPECT_NE(Refusal([&] { OutputFile file(In("file") / "b" / "a", Folders::kMake); }).find("is not a folder"),
            std::string::npos);
  EXPECT_NE(Refusal([&] { OutputFile file(folder_); }).find("it is a folder"), std::string::npos);
  EXPECT_NE(Refusal([&] { OutputFile file("/proc/a"); }).find("/proc/a: cannot write"), std::string::npos);
  OutputFile made(In("new/er/a"), Folders::kMake);
  EXPECT_EQ(Names(), std::vector<std::string>{"file"});
  made.Write("x");
  EXPECT_EQ(ReadFile(In("new/er/a")), "x");
}

TEST_F(OutputFileTest, PipesAndDevicesAreWrittenStraight) {
  ASSERT_EQ(::mkfifo(In("pipe").c_str(), 0600), 0);
  const Descriptor reader(::open(In("pipe").c_str(), O_RDONLY | O_NONBLOCK));
  OutputFile pipe(In("pipe"));
  EXPECT_TRUE(pipe.streams());
  pipe.Write("through");
  std::string got(7, ' ');
  EXPECT_EQ(ReadSome(reader.get(), got), 7);
  EXPECT_EQ(got, "through");
  OutputFile null("/dev/null");
  EXPECT_TRUE(null.streams());
  null.Write("gone");
  OutputFile full("/dev/full");
  EXPECT_NE(Refusal([&] { full.Write("x"); }).find("/dev/full: cannot write: No space left"), std::string::npos);
}

TEST_F(OutputFileTest, NoTwoAreTheSameFile) {
  WriteFile(In("old"), "");
  fs::create_symlink("old", In("link"));
  fs::create_hard_link(In("old"), In("hard"));
  fs::create_symlink("new", In("dangling"));
  fs::create_symlink(folder_, In("again"));
  OutputFiles outputs;
  OutputFile first = outputs.Open("--json", In("old"));
  OutputFile second = outputs.Open("--svg", In("new"));
  for (const char* other : {"old", "link", "hard", "new", "dangling", "again/new"}) {
    const std::string refusal = Refusal([&] { outputs.Open("--trace", folder_.string() + "/" + other); });
    EXPECT_EQ(refusal.find("--trace: "), 0U) << other << ": " << refusal;
    EXPECT_NE(refusal.find(" goes too"), std::string::npos) << refusal;
  }
  OutputFile third = outputs.Open("--trace", In("third"));
  OutputFile null = outputs.Open("--a", "/dev/null");
  OutputFile null_again = outputs.Open("--b", "/dev/null");
  EXPECT_FALSE(outputs.Open("--c", ""));
}

TEST_F(OutputFileTest, NoneIsAnInput) {
  fs::create_directory(In("model"));
  WriteFile(In("model/model-00001-of-00002.safetensors"), "weights");
  WriteFile(In("prompt"), "text");
  fs::create_hard_link(In("model/model-00001-of-00002.safetensors"), In("blob"));
  OutputFiles outputs;
  outputs.Protect(In("model"));
  outputs.Protect(In("prompt"));
  for (const char* input :
       {"model/model-00001-of-00002.safetensors", "blob", "model/generation_config.json", "prompt"}) {
    EXPECT_EQ(Refusal([&] { outputs.Open("--json", In(input)); }).find("--json: " + In(input).string()), 0U) << input;
  }
  OutputFile picture = outputs.Open("--svg", In("model/timeline.svg"));
  EXPECT_EQ(ReadFile(In("blob")), "weights");
}

}  // namespace
}  // namespace runahead
