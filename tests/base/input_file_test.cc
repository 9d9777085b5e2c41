// Inputs: files, pipes that block or not, and pipes in the place of files.
#include "base/input_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>

#include "base/file.h"
#include "base/model_folder.h"
#include "runahead/error.h"
#include "tests/base/folder_test.h"

namespace runahead {
namespace {

namespace fs = std::filesystem;

class InputFileTest : public FolderTest {
 protected:
  [[nodiscard]] std::string In(const std::string& name) const { return FolderTest::In(name).string(); }
};

TEST_F(InputFileTest, ReadsFilesAndNamedPipes) {
  const std::string text(300'000, 'x');
  WriteFile(In("file"), text);
  EXPECT_EQ(ReadInput(In("file")), text);
  EXPECT_EQ(ReadInput("/dev/null"), "");
  ASSERT_EQ(::mkfifo(In("pipe").c_str(), 0600), 0);
  std::thread writer([&] {  // opens it when it is open for reading
    const Descriptor pipe(::open(In("pipe").c_str(), O_WRONLY));
    EXPECT_EQ(WriteAll(pipe.get(), text), 0);
  });
  EXPECT_EQ(ReadInput(In("pipe")), text);
  writer.join();
}

TEST_F(InputFileTest, WaitsForPipesThatDoNotBlock) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_NONBLOCK), 0);
  Descriptor read_end(ends[0]);
  const std::string text(1'000'000, 'y');
  std::thread writer([&] {
    const Descriptor write_end(ends[1]);
    EXPECT_EQ(WriteAll(write_end.get(), text), 0);
  });
  EXPECT_EQ(ReadInput("/dev/fd/" + std::to_string(read_end.get())), text);
  writer.join();
}

TEST_F(InputFileTest, APipeInTheFilesPlaceIsNotWaitedFor) {
  ASSERT_EQ(::mkfifo(In("pipe").c_str(), 0600), 0);
  EXPECT_EQ(Refusal([&] { (void)ReadFile(In("pipe")); }), In("pipe") + ": is a pipe, not a regular file");
  EXPECT_EQ(Refusal([&] { MappedFile file(In("pipe")); }), In("pipe") + ": is a pipe, not a regular file");
  EXPECT_EQ(Refusal([&] { (void)ReadFile("/dev/null"); }), "/dev/null: is a device, not a regular file");
  EXPECT_EQ(Refusal([&] { (void)ReadInput(folder_.string()); }), folder_.string() + ": is a folder, expected a file");
}

TEST_F(InputFileTest, NamesWhereADanglingLinkLeads) {
  fs::create_symlink("nowhere", In("link"));
  EXPECT_EQ(Refusal([&] { (void)ReadInput(In("link")); }),
            In("link") + ": cannot open: it is a link to nowhere, which does not exist");
  EXPECT_EQ(Refusal([&] { CheckModelFolder(In("link")); }),
            In("link") + ": it is a link to nowhere, which does not exist");
}

TEST_F(InputFileTest, RefusesWhatIsTooLargeForAnySuchFile) {
  WriteFile(In("sparse"), "");
  fs::resize_file(In("sparse"), kLargestFile + 1);
  const std::string refusal = Refusal([&] { (void)ReadFile(In("sparse")); });
  EXPECT_NE(refusal.find(std::to_string(kLargestFile + 1)), std::string::npos) << refusal;
}

TEST_F(InputFileTest, SaysWhatStandsInAModelFoldersPlace) {
  const auto refusal = [](const fs::path& dir) { return Refusal([&] { CheckModelFolder(dir); }); };
  const auto expect = [](const std::string& got, const std::string& part) {
    EXPECT_NE(got.find(part), std::string::npos) << "'" << part << "' in: " << got;
  };
  expect(refusal(In("no/such/folder")), "there is no such folder");
  expect(refusal("meta-llama/Llama-3.1-8B"), "a model of the hub is downloaded first");
  WriteFile(In("config.json"), "{}");
  EXPECT_EQ(refusal(folder_), "");
  expect(refusal(In("config.json")), "expected its folder, " + folder_.string());
  fs::create_directories(In("models--a--b/snapshots/0123"));
  fs::create_directories(In("models--a--b/refs"));
  WriteFile(In("models--a--b/refs/main"), "0123");
  expect(refusal(In("models--a--b")), "the model is in " + In("models--a--b/snapshots/0123"));
  fs::create_symlink("../../blobs/ab", In("models--a--b/snapshots/0123/config.json"));
  expect(refusal(In("models--a--b/snapshots/0123")), "config.json: it is a link to ../../blobs/ab");
  fs::remove(In("config.json"));
  expect(refusal(folder_), "one is in " + In("models--a--b/snapshots/0123"));
  fs::create_directory(In("empty"));
  expect(refusal(In("empty")), "has no config.json");
}

TEST_F(InputFileTest, FindsTheMappedFileOfAnAddress) {
  WriteFile(In("a"), "aaaa");
  WriteFile(In("b"), "bbbb");
  const MappedFile a(In("a"));
  MappedFile b(In("b"));
  EXPECT_EQ(std::string(MappedFileAt(a.bytes().data() + 3)), In("a"));
  const std::byte* place = b.bytes().data();
  const MappedFile moved = std::move(b);
  EXPECT_EQ(std::string(MappedFileAt(place)), In("b"));
  EXPECT_EQ(MappedFileAt(&place), nullptr);
  { const MappedFile gone = MappedFile(In("a")); }
  EXPECT_EQ(std::string(MappedFileAt(a.bytes().data())), In("a"));
}

}  // namespace
}  // namespace runahead
