#include "tests/cli/process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "base/file.h"

namespace runahead {
namespace {

void Redirect(const std::string& path, int flags, int target) {
  const int fd = ::open(path.c_str(), flags, 0600);
  if (fd < 0 || ::dup2(fd, target) < 0) ::_exit(126);
}

/// Becomes the program, in the child. Never returns.
void Become(const std::string& program, const std::vector<std::string>& arguments, const RunOptions& options,
            const TemporaryFolder& folder) {
  Redirect(folder / "in", O_RDONLY, STDIN_FILENO);
  Redirect(folder / "err", O_WRONLY | O_CREAT, STDERR_FILENO);
  if (options.close_stdout) {
    int ends[2];
    if (::pipe(ends) != 0 || ::dup2(ends[1], STDOUT_FILENO) < 0) ::_exit(126);
    ::close(ends[0]);
    ::close(ends[1]);
  } else {
    const std::string& path = options.stdout_path;
    Redirect(path.empty() ? folder / "out" : path, O_WRONLY | O_CREAT, STDOUT_FILENO);
  }
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  ::_exit(127);
}

}  // namespace

Outcome RunProgram(const std::string& program, const std::vector<std::string>& arguments, const RunOptions& options) {
  const TemporaryFolder folder;
  WriteFile(folder / "in", options.input);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child == 0) Become(program, arguments, options, folder);
  int status = 0;
  ::waitpid(child, &status, 0);
  Outcome outcome;
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (!options.close_stdout && options.stdout_path.empty()) outcome.out = ReadFile(folder / "out");
  outcome.err = ReadFile(folder / "err");
  return outcome;
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "runahead-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

}  // namespace runahead
