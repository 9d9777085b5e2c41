// Runs a program and keeps all that it says.
#pragma once

#include <string>
#include <vector>

namespace runahead {

struct Outcome {
  int exit_code = -1;  // -1: it did not exit by itself
  std::string out;
  std::string err;
};

struct RunOptions {
  std::string input;          // bytes for stdin
  bool close_stdout = false;  // stdout is a pipe that nobody reads
  std::string stdout_path;    // stdout is this file; Outcome::out stays empty
};

/// Runs `program` with `arguments` and waits for its end.
Outcome RunProgram(const std::string& program, const std::vector<std::string>& arguments,
                   const RunOptions& options = {});

/// A folder that is removed with everything in it at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace runahead
