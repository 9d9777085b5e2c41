// Runs the program on thousands of slightly wrong files: no signal, nothing slow or large, and one line for each
// refusal.
//   mutation_fuzz PROGRAM [--runs N of each kind] [--seed N] [--kinds A,B] [--jobs N] [--show]
// Prints a table, and each finding with the file that caused it, kept in ./mutation-findings. Exit code 1: findings.
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "report/table.h"
#include "tests/cli/process.h"
#include "tests/mutation/kinds.h"

namespace runahead::mutation {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kMostSeconds = 10;
constexpr long kMostKib = 1'000'000;

struct Flags {
  std::string program;
  int runs = 2000;
  uint64_t seed = 1;
  std::vector<std::string> kinds;
  int jobs = 1;
  bool show = false;
};

/// What one run of the program did.
struct Run {
  int status = 0;  // as of waitpid
  double seconds = 0;
  long kib = 0;  // at most in memory
  std::string err;
};

/// Sums of one kind.
struct Tally {
  int runs = 0;
  int accepted = 0;
  int unnamed = 0;  // refusals without the changed field, or for changed bytes without the file
  double seconds = 0;
  double slowest_s = 0;
  long most_kib = 0;
  std::map<std::string, int> findings;  // by what is wrong
};

Run RunOnce(const std::string& program, const std::vector<std::string>& arguments, const std::string& err_path) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(kMostSeconds);  // survives exec
    const int null = ::open("/dev/null", O_RDWR);
    const int err = ::open(err_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  Run run;
  rusage used{};
  ::wait4(child, &run.status, 0, &used);
  run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  run.kib = used.ru_maxrss;
  run.err = ReadFile(err_path);
  return run;
}

std::vector<std::string> InFolder(std::vector<std::string> command, const fs::path& folder) {
  for (std::string& argument : command) {
    if (argument.starts_with("@")) argument = folder.string() + argument.substr(1);
  }
  return command;
}

/// What is wrong with a run; empty: nothing.
std::string WrongWith(const Run& run) {
  if (WIFSIGNALED(run.status)) {
    const int signal = WTERMSIG(run.status);
    return signal == SIGALRM ? fmt::format("over {} s", kMostSeconds) : fmt::format("signal {}", signal);
  }
  if (run.kib > kMostKib) return fmt::format("over {} kB", kMostKib);
  const int code = WEXITSTATUS(run.status);
  if (code == 0) return "";
  if (code != 2) return fmt::format("exit code {}", code);
  const bool one_line = std::count(run.err.begin(), run.err.end(), '\n') == 1 && run.err.starts_with("runahead: ");
  if (!one_line) return "not one line";
  for (const char* word : {"json.exception", "check failed", "std::", "basic_string", "vector", "stoi", "what()"}) {
    if (run.err.find(word) != std::string::npos) return fmt::format("speaks of {}", word);
  }
  return "";
}

/// Whether a refusal names the changed file or a field on the way to the change.
bool Names(const Run& run, const Mutant& mutant, const std::string& path) {
  const auto says = [&](const std::string& part) { return run.err.find(part) != std::string::npos; };
  if (mutant.fields.empty()) return says(path);
  return std::any_of(mutant.fields.begin(), mutant.fields.end(), says);
}

class Fuzzer {
 public:
  explicit Fuzzer(const Flags& flags) : flags_(flags), kinds_(WriteSamples(flags.program, samples_ / "s")) {
    if (flags.kinds.empty()) return;
    std::erase_if(kinds_, [&](const Kind& kind) {
      return std::find(flags.kinds.begin(), flags.kinds.end(), kind.name) == flags.kinds.end();
    });
  }

  int RunAll() {
    std::vector<std::vector<std::string>> rows;
    bool found = false;
    for (const Kind& kind : kinds_) {
      const Tally tally = RunKind(kind);
      rows.push_back({kind.name, std::to_string(tally.runs), std::to_string(tally.accepted),
                      std::to_string(tally.runs - tally.accepted), std::to_string(tally.unnamed),
                      fmt::format("{:.1f}", 1e3 * tally.seconds / std::max(1, tally.runs)),
                      fmt::format("{:.2f}", tally.slowest_s), fmt::format("{}", tally.most_kib / 1000),
                      tally.findings.empty() ? "none" : fmt::format("{}", fmt::join(tally.findings, ", "))});
      found |= !tally.findings.empty();
    }
    using report::Align;
    const std::string table = report::FormatTable({{"kind", Align::kLeft},
                                                   {"runs"},
                                                   {"accepted"},
                                                   {"refused"},
                                                   {"without a field"},
                                                   {"ms each"},
                                                   {"slowest s"},
                                                   {"most MB"},
                                                   {"findings", Align::kLeft}},
                                                  rows);
    std::fputs(table.c_str(), stdout);
    return found ? 1 : 0;
  }

 private:
  Tally RunKind(const Kind& kind) {
    Tally tally;
    std::atomic<int> next = 0;
    std::vector<std::thread> workers;
    for (int job = 0; job < flags_.jobs; ++job) {
      workers.emplace_back([&, job] { Work(kind, job, next, tally); });
    }
    for (std::thread& worker : workers) worker.join();
    return tally;
  }

  /// Runs of one worker, in a copy of the samples of its own.
  void Work(const Kind& kind, int job, std::atomic<int>& next, Tally& tally) {
    const fs::path folder = samples_ / fmt::format("job-{}", job);
    fs::copy(samples_ / "s", folder, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    const fs::path path = (folder / kind.folder / kind.file).lexically_normal();
    const std::string sample = ReadFile(path);
    const std::vector<std::string> command = InFolder(kind.command, folder);
    const std::vector<std::string> further = InFolder(kind.further, folder);
    for (int run = next++; run < flags_.runs; run = next++) {
      Mutator mutator(flags_.seed * 1'000'003 + static_cast<uint64_t>(run));
      const Mutant mutant = Mutate(kind, sample, mutator);
      WriteFile(path, mutant.text);
      Run done = RunOnce(flags_.program, command, (folder / "err").string());
      if (done.status == 0 && !further.empty()) done = RunOnce(flags_.program, further, (folder / "err").string());
      const std::lock_guard lock(mutex_);
      Count(kind, run, mutant, path.string(), done, tally);
    }
    WriteFile(path, sample);
  }

  void Count(const Kind& kind, int number, const Mutant& mutant, const std::string& path, const Run& run,
             Tally& tally) {
    ++tally.runs;
    tally.seconds += run.seconds;
    tally.slowest_s = std::max(tally.slowest_s, run.seconds);
    tally.most_kib = std::max(tally.most_kib, run.kib);
    const std::string wrong = WrongWith(run);
    const bool accepted = run.status == 0;
    tally.accepted += accepted ? 1 : 0;
    const bool named = accepted || Names(run, mutant, path);
    tally.unnamed += named ? 0 : 1;
    if (!wrong.empty()) {
      ++tally.findings[wrong];
      const fs::path kept = fs::path("mutation-findings") / fmt::format("{}-{}-{}", kind.name, flags_.seed, number);
      fs::create_directories(kept.parent_path());
      WriteFile(kept, mutant.text);
      fmt::print("{}: {}: {}\n", kept.string(), wrong, run.err);
    } else if (flags_.show && !named) {
      fmt::print("{} {}: changed {}: {}", kind.name, number, fmt::join(mutant.fields, "."), run.err);
    }
  }

  const Flags& flags_;
  TemporaryFolder folder_;
  fs::path samples_ = folder_ / "";
  std::vector<Kind> kinds_;
  std::mutex mutex_;
};

}  // namespace
}  // namespace runahead::mutation

namespace {

int Run(int argc, char** argv) {
  using namespace runahead::mutation;
  Flags flags;
  CLI::App app("Runs the program on slightly wrong files");
  app.add_option("program", flags.program, "The program runahead")->required();
  app.add_option("--runs", flags.runs, "Of each kind [2000]");
  app.add_option("--seed", flags.seed, "Another seed, other files [1]");
  app.add_option("--kinds", flags.kinds, "Only these [all]")->delimiter(',');
  app.add_option("--jobs", flags.jobs, "At once [1]");
  app.add_flag("--show", flags.show, "Print refusals that name no changed field");
  CLI11_PARSE(app, argc, argv);
  return Fuzzer(flags).RunAll();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::exception& error) {
    std::fputs(error.what(), stderr);
    return 1;
  }
}
