// Signals: those that a file raises, turned into one line, and a user's wish to stop, turned into a question.
#pragma once

#include <csignal>
#include <initializer_list>
#include <utility>
#include <vector>

namespace runahead::cli {

/// From now on a closed pipe and a file over the limit on sizes (SIGPIPE, SIGXFSZ) are errors of the call that
/// writes, and a mapped file that somebody cuts short (SIGBUS) ends the program with exit code 1 and one line that
/// names it.
void TurnSignalsIntoErrors();

/// What a signal does that comes once more.
enum class SecondSignal : unsigned char { kEndsTheProgram, kIsCounted };

/// While it lives, `signals` (SIGINT, SIGTERM) do nothing but be noted. At most one at a time.
class Interrupts {
 public:
  Interrupts(std::initializer_list<int> signals, SecondSignal second);
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  /// Whether one came, since the begin or the last Forget. Thread-safe.
  [[nodiscard]] bool Came() const;
  void Forget();

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
};

}  // namespace runahead::cli
