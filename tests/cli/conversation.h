// A program that is spoken with while it runs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace runahead {

/// A running program whose stdin and stdout are pipes; stderr is the test's own. A read that takes longer than half a
/// minute fails the test.
class Conversation {
 public:
  Conversation(const std::string& program, const std::vector<std::string>& arguments);
  ~Conversation();
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  void Write(const std::string& text);
  /// The next line without its end; what there is when the program has ended.
  std::string ReadLine();
  /// What has come, at least a byte; empty at the end.
  std::string ReadBlock();
  /// Sends the program a signal.
  void Signal(int number) const;
  /// Closes stdin and waits for the end. The exit code, or -1.
  int End();
  /// The most memory that the program has held, as seen at the reads so far, in KiB.
  [[nodiscard]] long peak_kib() const { return peak_kib_; }

 private:
  pid_t child_ = -1;
  int to_ = -1;
  int from_ = -1;
  std::string came_;
  long peak_kib_ = 0;
};

}  // namespace runahead
