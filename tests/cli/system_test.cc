// Outputs, inputs, limits and signals: what a file system and an operating system do to the program.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "base/descriptor.h"
#include "base/source_dir.h"
#include "tests/cli/fixture.h"
#include "tests/report/well_formed.h"

namespace runahead {
namespace {

class SystemTest : public CliTest {
 protected:
  static Outcome Generate(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"generate", "--model", Model(), "--prompt-ids", "1,2,3", "-n", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Runahead(arguments);
  }

  /// A shell's script, where $R is the program and $M the model.
  static Outcome Shell(const std::string& script) {
    return RunProgram(
        "/bin/sh", {"-c", fmt::format("R='{}'; M='{}'; cd '{}'; {}", ProgramPath(), Model(), InFolder(""), script)});
  }

  /// One line on stderr that holds each of `expected`, and `exit_code`.
  static void ExpectOneLine(const Outcome& outcome, int exit_code, const std::vector<std::string>& expected) {
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    EXPECT_EQ(outcome.err.find("runahead: "), 0U) << outcome.err;
    EXPECT_EQ(report::Count(outcome.err, "\n"), 1) << outcome.err;
    for (const std::string& part : expected) {
      EXPECT_NE(outcome.err.find(part), std::string::npos) << "'" << part << "' in: " << outcome.err;
    }
  }

  static std::vector<std::string> NamesIn(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
};

TEST_F(SystemTest, NoTwoOutputsAreTheSameFile) {
  std::filesystem::create_symlink("same", InFolder("same-link"));
  for (const std::string& second : {InFolder("same"), InFolder("./same"), InFolder("same-link")}) {
    ExpectOneLine(Generate({"--trace", InFolder("same"), "--timeline", second}), 2,
                  {"--timeline", second, "--trace goes too"});
    EXPECT_FALSE(std::filesystem::exists(InFolder("same")));
  }
  ExpectOneLine(Runahead({"bench", "--model", Model(), "--contexts", "8", "--json", InFolder("same"), "--svg",
                          InFolder("same")}),
                2, {"--svg", "--json goes too"});
}

TEST_F(SystemTest, NoOutputReplacesAnInput) {
  const std::string weights = Model() + "/model.safetensors";
  const std::string before = ReadFile(weights);
  std::filesystem::create_hard_link(weights, InFolder("blob"));
  for (const std::string& output : {weights, InFolder("blob"), Model() + "/config.json"}) {
    ExpectOneLine(Generate({"--timeline", output}), 2, {"--timeline", output, Model()});
  }
  EXPECT_EQ(ReadFile(weights), before);
  WriteFile(InFolder("prompt.txt"), "abc");
  const Outcome outcome = Runahead({"generate", "--model", Model(), "--prompt-file", InFolder("prompt.txt"), "-n",
                                    "1", "--trace", InFolder("prompt.txt")});
  ExpectOneLine(outcome, 2, {"--trace", InFolder("prompt.txt"), "input"});
  WriteFile(InFolder("suite.json"), R"({"models": []})");
  WriteFile(InFolder("c.toml"), "model = \"llama-7b\"\ncontexts = [64]\n[[devices]]\nname = \"a\"\ntflops = 1\n");
  ExpectOneLine(Runahead({"plan", InFolder("c.toml"), "--svg", InFolder("c.toml")}), 2, {"--svg", "input"});
}

TEST_F(SystemTest, WhatCannotBeWrittenIsRefusedBeforeTheWork) {
  // Each would measure for a while first.
  const std::vector<std::string> tune = {"tune", "--model", Model(), "--devices", "cpu:2", "--contexts", "64"};
  for (const char* folder : {"/dev/null/x", "/proc/x"}) {
    std::vector<std::string> arguments = tune;
    arguments.insert(arguments.end(), {"--tuned", folder});
    const Outcome outcome = Runahead(arguments);
    ExpectOneLine(outcome, 2, {folder, "cannot write"});
    EXPECT_EQ(outcome.out, "");
  }
  const std::vector<std::string> suite = {"bench",     "--suite", "paper",      "--model", Model(),
                                          "--devices", "cpu:2",   "--contexts", "16"};
  for (const auto& [flag, value] : {std::pair{"--suite-links", "link:0"}, std::pair{"--suite-links", "rank:"},
                                    std::pair{"--plots", "/dev/null/x"}, std::pair{"--json", "/no/such/x"},
                                    std::pair{"--ranks", "3"}, std::pair{"--contexts", "1000"}}) {
    std::vector<std::string> arguments = suite;
    arguments.insert(arguments.end(), {flag, value});
    if (std::string_view(flag) == "--contexts") arguments.erase(arguments.begin() + 7, arguments.begin() + 9);
    const Outcome outcome = Runahead(arguments);
    ExpectOneLine(outcome, 2, {std::string_view(flag) == "--contexts" ? "--contexts" : value});
    EXPECT_EQ(outcome.out, "") << flag;
  }
  const Outcome second_model = Runahead({"bench", "--suite", "paper", "--model", Model(), "--model", InFolder("none"),
                                         "--devices", "cpu:2", "--contexts", "16"});
  ExpectOneLine(second_model, 2, {InFolder("none"), "no such folder"});
  EXPECT_EQ(second_model.out, "");
}

TEST_F(SystemTest, ASuitesPicturesAreOpenedBeforeTheWork) {
  const std::vector<std::string> suite = {"bench", "--suite",    "paper", "--model",       Model(), "--devices",
                                          "cpu:2", "--contexts", "16",    "--suite-links", "full"};
  const auto refused = [&](const std::vector<std::string>& more, const std::vector<std::string>& parts) {
    std::vector<std::string> arguments = suite;
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Runahead(arguments);
    ExpectOneLine(outcome, 2, parts);
    EXPECT_EQ(outcome.out, "");
  };
  std::filesystem::create_directory(InFolder("other"));
  std::filesystem::copy(Model(), InFolder("other/model"));
  refused({"--model", InFolder("other/model/"), "--plots", InFolder("drawn")},
          {"--plots", InFolder("drawn") + "/model-full-contexts.svg", "'model'"});
  std::filesystem::create_directories(InFolder("drawn/model-full-ranks.svg"));
  refused({"--plots", InFolder("drawn")}, {InFolder("drawn") + "/model-full-ranks.svg", "it is a folder"});
  refused({"--json", InFolder("drawn") + "/model-full-contexts.svg", "--plots", InFolder("drawn")},
          {"--plots", "--json goes too"});
  EXPECT_EQ(NamesIn(InFolder("drawn")), std::vector<std::string>{"model-full-ranks.svg"});
}

TEST_F(SystemTest, AnEmptyPathIsRefused) {
  ExpectOneLine(Generate({"--timeline", ""}), 2, {"--timeline: expected FILE.svg, got ''"});
  ExpectOneLine(Generate({"--tuned", ""}), 2, {"--tuned: expected DIR, got ''"});
  ExpectOneLine(Runahead({"generate", "--model", Model(), "--prompt-file", ""}), 2, {"--prompt-file", "got ''"});
  ExpectOneLine(Runahead({"make-model", "tiny-llama", ""}), 2, {"folder: expected DIR, got ''"});
  ExpectOneLine(Runahead({"inspect", ""}), 2, {"model: expected MODEL, got ''"});
}

TEST_F(SystemTest, OutputsThatWouldNotBeWrittenAreRefused) {
  WriteFile(InFolder("suite.json"), R"({"models": []})");
  for (const char* flag : {"--json", "--svg", "--timeline", "--trace"}) {
    ExpectOneLine(Runahead({"bench", "--from", InFolder("suite.json"), flag, InFolder("x")}), 2,
                  {flag, InFolder("x")});
    if (std::string_view(flag) == "--json") continue;
    ExpectOneLine(Runahead({"bench", "--suite", "paper", "--model", Model(), "--devices", "cpu:2", "--contexts", "16",
                            flag, InFolder("x")}),
                  2, {flag, InFolder("x")});
  }
  ExpectOneLine(Runahead({"bench", "--model", Model(), "--contexts", "16", "--plots", InFolder("x")}), 2,
                {"--plots", InFolder("x")});
}

TEST_F(SystemTest, AFileOfMeasurementsThatCannotBeReplacedIsRefusedBeforeTheWork) {
  const std::vector<std::string> tune = {
      "tune",      "--model", Model(),   "--devices",         "cpu:2", "--contexts", "24",
      "--repeats", "1",       "--tuned", InFolder("measured")};
  ASSERT_EQ(Runahead(tune).exit_code, 0);
  for (const std::string& name : NamesIn(InFolder("measured"))) {
    if (!name.starts_with("partitions-")) continue;
    std::filesystem::remove(InFolder("measured/" + name));
    std::filesystem::create_directory(InFolder("measured/" + name));
    const Outcome outcome = Runahead(tune);
    ExpectOneLine(outcome, 2, {"measured/" + name, "it is a folder"});
    EXPECT_EQ(outcome.out, "");
  }
}

TEST_F(SystemTest, PartitionsOfOtherSizesAreRefusedBeforeTheWork) {
  for (const char* command : {"bench", "tune"}) {
    const Outcome outcome = Runahead({command, "--model", Model(), "--devices", "cpu:2", "--contexts", "32",
                                      "--repeats", "1", "--partitions", "5,4,3"});
    ExpectOneLine(outcome, 2, {"--partitions", "5,4,3", "3 ranks"});
    EXPECT_EQ(outcome.out, "");
  }
  const Outcome searched = Runahead({"bench", "--model", Model(), "--devices", "cpu:2", "--contexts", "32", "--tuned",
                                     InFolder("none"), "--partitions", "searched"});
  ExpectOneLine(searched, 2, {"32 tokens on 2 ranks"});
  EXPECT_EQ(searched.out, "");
}

TEST_F(SystemTest, PipesAndDevicesAreOutputsToo) {
  const Outcome to_stdout = Generate({"--trace", "/dev/stdout"});
  EXPECT_EQ(to_stdout.exit_code, 0) << to_stdout.err;
  EXPECT_NE(to_stdout.out.find("traceEvents"), std::string::npos) << to_stdout.out;
  EXPECT_EQ(Generate({"--trace", "/dev/null", "--timeline", "/dev/null"}).exit_code, 0);
  const Outcome piped = Shell("mkfifo out; cat out & $R generate --model $M --prompt-ids 1,2 -n 1 --trace out; wait");
  EXPECT_EQ(piped.exit_code, 0) << piped.err;
  EXPECT_NE(piped.out.find("traceEvents"), std::string::npos) << piped.out;
  ExpectOneLine(Generate({"--trace", "/dev/full"}), 2, {"/dev/full: cannot write: No space left"});
  // Where the shell sends stdout no other output goes.
  ExpectOneLine(Shell("$R generate --model $M --prompt-ids 1,2 -n 1 --json --trace both > both"), 2, {"stdout"});
}

TEST_F(SystemTest, AnOutputBeyondALimitLeavesTheOldFile) {
  std::filesystem::create_directory(InFolder("limited"));
  WriteFile(InFolder("limited/t.svg"), "old");
  const Outcome outcome =
      Shell("ulimit -f 1; $R generate --model $M --devices cpu:2 --prompt-ids 1,2,3,4 -n 1 --timeline limited/t.svg");
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_NE(outcome.err.find("limited/t.svg: cannot write: File too large"), std::string::npos) << outcome.err;
  EXPECT_EQ(report::Count(outcome.err, "\n"), 1) << outcome.err;
  EXPECT_EQ(ReadFile(InFolder("limited/t.svg")), "old");
  EXPECT_EQ(NamesIn(InFolder("limited")), std::vector<std::string>{"t.svg"});
  const Outcome made = Shell("ulimit -f 1; $R make-model tiny-llama beyond");
  ExpectOneLine(made, 2, {"File too large"});
  EXPECT_FALSE(std::filesystem::exists(InFolder("beyond")));
}

TEST_F(SystemTest, AFullDiskLeavesTheOldFiles) {
  const Outcome outcome = Shell(
      "mkdir disk; unshare -rm true 2>/dev/null || exit 77; unshare -rm sh -c '"
      "mount -t tmpfs -o size=256k none disk || exit 77; echo old > disk/t.svg; "
      "dd if=/dev/zero of=disk/fill bs=4k 2>/dev/null; "
      "\"$0\" generate --model \"$1\" --devices cpu:2 --prompt-ids 1,2,3,4 -n 1 --timeline disk/t.svg; "
      "echo $?; cat disk/t.svg; ls -A disk' \"$R\" \"$M\"");
  if (outcome.exit_code == 77) GTEST_SKIP() << "no file system of one's own here";
  EXPECT_EQ(outcome.out, "2\nold\nfill\nt.svg\n");
  EXPECT_NE(outcome.err.find("disk/t.svg: cannot write: No space left on device"), std::string::npos) << outcome.err;
}

TEST_F(SystemTest, AnInterruptedMakeModelLeavesNothingInTheWay) {
  const std::string folder = InFolder("interrupted");
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(ProgramPath().c_str(), "runahead", "make-model", "llama-7b", folder.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  while (!std::filesystem::exists(folder) && ::waitpid(child, &status, WNOHANG) == 0) std::this_thread::yield();
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no room for such a model here";
  const Outcome again = Runahead({"make-model", "tiny-llama", folder});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_TRUE(std::filesystem::exists(folder + "/config.json"));
}

TEST_F(SystemTest, ReadsPipes) {
  const Outcome file = Shell("mkfifo in; printf hi > in & $R generate --model $M --prompt-file in -n 1 --json; wait");
  EXPECT_EQ(file.exit_code, 0) << file.err;
  const Outcome device = Shell("printf hi | $R tokenize --model $M --no-special --file /dev/stdin");
  EXPECT_EQ(device.out, "[104, 105]\n") << device.err;
  const Outcome descriptor = Shell("printf hi | $R tokenize --model $M --no-special --file /dev/fd/3 3<&0");
  EXPECT_EQ(descriptor.out, "[104, 105]\n") << descriptor.err;
  const Outcome plan = Shell(
      "printf 'model=\"llama-7b\"\\ncontexts=[64]\\n[[devices]]\\nname=\"a\"\\ntflops=1\\n' | $R plan /dev/stdin");
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
}

TEST_F(SystemTest, APipeInAModelFilesPlaceIsRefused) {
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"}) {
    const std::string copy = CopyOfModel(std::string("pipe-") + name);
    const std::string path = copy + "/" + name;
    std::filesystem::remove(path);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    ExpectOneLine(Runahead({"generate", "--model", copy, "--prompt", "a", "-n", "1"}), 2, {path, "is a pipe"});
  }
}

TEST_F(SystemTest, SaysWhatStandsInAModelFoldersPlace) {
  const auto refused = [](const std::string& model, const std::string& part) {
    for (const char* prompt : {"--prompt", "--prompt-ids"}) {
      ExpectOneLine(Runahead({"generate", "--model", model, prompt, "1"}), 2, {model, part});
    }
    ExpectOneLine(Runahead({"inspect", model}), 2, {model, part});
    ExpectOneLine(Runahead({"tokenize", "--model", model}), 2, {model, part});
  };
  refused("/no/such/folder", "no such folder");
  refused("meta-llama/Llama-3.1-8B", "hub");
  refused(Model() + "/config.json", "expected its folder");
  std::filesystem::create_symlink("nowhere", InFolder("dangling"));
  refused(InFolder("dangling"), "link to nowhere");
  std::filesystem::create_directories(InFolder("models--a--b/snapshots"));
  std::filesystem::copy(Model(), InFolder("models--a--b/snapshots/0123"));
  refused(InFolder("models--a--b"), InFolder("models--a--b/snapshots/0123"));
  const std::string lost = CopyOfModel("lost-weights");
  std::filesystem::remove(lost + "/model.safetensors");
  std::filesystem::create_symlink("../blobs/ab", lost + "/model.safetensors");
  ExpectOneLine(Runahead({"generate", "--model", lost, "--prompt-ids", "1"}), 2,
                {lost + "/model.safetensors", "link to ../blobs/ab"});
}

TEST_F(SystemTest, WaitsForPipesThatDoNotBlock) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "the keeper of the harbour wrote\n";
  WriteFile(InFolder("long.txt"), text);
  const std::string whole = Runahead({"tokenize", "--model", Model(), "--file", InFolder("long.txt")}).out;
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  Descriptor read_end(ends[0]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::execl(ProgramPath().c_str(), "runahead", "tokenize", "--model", Model().c_str(), "--file",
            InFolder("long.txt").c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::string got;
  std::array<char, 1000> block;
  for (ssize_t bytes = 0; (bytes = ReadSome(read_end.get(), block)) > 0;) {
    got.append(block.data(), static_cast<size_t>(bytes));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(got, whole);
}

TEST_F(SystemTest, WeightsCutShortAreNamed) {
  // Emptied as soon as the first token is out, while a long answer is being decoded.
  const std::string copy = CopyOfModel("emptied");
  Json config = LoadJson(copy + "/config.json");
  config["max_position_embeddings"] = 1'000'000;
  WriteFile(copy + "/config.json", config.dump());
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const std::string err = InFolder("emptied.err");
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
    ::execl(ProgramPath().c_str(), "runahead", "generate", "--model", copy.c_str(), "--prompt", "abc", "-n", "900000",
            "--ignore-eos", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::array<char, 1> byte;
  EXPECT_EQ(ReadSome(ends[0], byte), 1);
  std::filesystem::resize_file(copy + "/model.safetensors", 0);
  std::array<char, 4096> block;
  while (ReadSome(ends[0], block) > 0) continue;
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  ExpectOneLine({WEXITSTATUS(status), "", ReadFile(err)}, 1, {copy + "/model.safetensors", "cut short"});
}

TEST_F(SystemTest, MemoryLimitsAreCounted) {
  const Outcome limited =
      Shell("ulimit -v 3000000; $R generate --model $M --threads-per-rank 1 --prompt-ids 1,2 -n 1 --devices cpu:1");
  EXPECT_EQ(limited.exit_code, 0) << limited.err;
  ExpectOneLine(Shell("ulimit -v 4000000; $R generate --model $M --devices cpu:2 --threads-per-rank 1024 "
                      "--prompt-ids 1,2 -n 1"),
                2, {"--threads-per-rank", "2048"});
  // Wherever the memory ends.
  for (int kib = 500; kib <= 5000; kib += 100) {
    const Outcome outcome = Shell(
        fmt::format("ulimit -d {}; $R generate --model '{}/models/demo' --prompt-ids 1,2 -n 1", kib, SourceDir()));
    constexpr int kNotLoaded = 127;
    if (outcome.exit_code == kNotLoaded || outcome.exit_code == 0) continue;
    ExpectOneLine(outcome, outcome.exit_code == 2 ? 2 : 1, {"memory"});
  }
  const std::string copy = CopyOfModel("endless");
  Json config = LoadJson(copy + "/config.json");
  config["max_position_embeddings"] = 100'000'000;
  WriteFile(copy + "/config.json", config.dump());
  ExpectOneLine(Shell(fmt::format("ulimit -v 3000000; $R generate --model {} --threads-per-rank 1 --prompt-ids 1,2 "
                                  "-n 90000000",
                                  copy)),
                2, {"a session of 90000002 tokens", "KV-cache", "ulimit -v"});
}

TEST_F(SystemTest, WrongJsonIsRefusedByFileAndField) {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    WriteFile(InFolder("s.json"), text);
    std::vector<std::string> expected = parts;
    expected.push_back(InFolder("s.json"));
    ExpectOneLine(Runahead({"bench", "--suite", "paper", "--from", InFolder("s.json")}), 2, expected);
    ExpectOneLine(Runahead({"bench", "--from", InFolder("s.json"), "--plots", InFolder("p")}), 2, expected);
  };
  refused("[1]", {"expected a JSON object", "[1]"});
  refused("{}", {"models"});
  refused(R"({"models": 1})", {"models", "expected a list", "1"});
  refused(R"({"models": [2]})", {"models[0]", "2"});
  refused(R"({"models": [{"model": "a", "dtype": 3}]})", {"models[0]: dtype", "3"});
  refused(R"({"models": [)", {"not valid JSON", "line 1"});
  refused(std::string(100'000, '['), {"nested deeper"});
}

TEST_F(SystemTest, WrongTomlIsRefusedByFileAndField) {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    WriteFile(InFolder("c.toml"), text);
    std::vector<std::string> expected = parts;
    expected.push_back(InFolder("c.toml"));
    ExpectOneLine(Runahead({"plan", InFolder("c.toml")}), 2, expected);
  };
  refused("model=\"llama-7b\"\ncontexts=[512]\n[[devices]]\nname=\"a\"\nprofile=\"\"\n",
          {"devices[0]: profile", "got \"\""});
  const std::string device = "contexts=[512]\n[[devices]]\nname=\"a\"\n";
  refused("model=\"nope\"\n" + device + "tflops=1\n", {"c.toml: model: ", "got 'nope'"});
  refused("model=\"llama-7b\"\n" + device + "tflops=nan\n", {"devices[0]: tflops", "got nan"});
  for (const char* links : {"links=3\n", "network=3\n"}) {  // though one device has none
    refused(links + ("model=\"llama-7b\"\n" + device) + "tflops=1\n", {"expected an object, got 3"});
  }
  refused("model=\"llama-7b\"\n" + device + "tflops=1\n[links]\nbandwidth_gbs=\"x\"\n",
          {"links: bandwidth_gbs", "\"x\""});
  refused("model = \"llama-7b\"\ncontexts = [512\n", {"line", "not valid TOML"});
  refused("a = " + std::string(100'000, '['), {"c.toml"});
  std::string deep = "a";
  for (int i = 0; i < 100'000; ++i) deep += ".a";
  refused(deep + " = 1\n", {"nested deeper"});
  refused("[" + deep + "]\n", {"nested deeper"});
}

TEST_F(SystemTest, UnknownFlagsAreEchoedInOrder) {
  ExpectOneLine(Generate({"--b", "1", "--a", "x"}), 2, {"--b 1 --a x"});
}

}  // namespace
}  // namespace runahead
