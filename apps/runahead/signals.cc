#include "signals.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <iterator>

#include "base/file.h"
#include "command.h"

namespace runahead::cli {
namespace {

/// Only what POSIX allows in a handler. Several threads may meet the same file: one of them speaks.
void EndForLostFile(int signal, siginfo_t* info, void* /*context*/) {
  static std::atomic_flag told = ATOMIC_FLAG_INIT;
  const char* const path = MappedFileAt(info->si_addr);
  if (path == nullptr) {  // a fault of our own: as without a handler
    std::signal(signal, SIG_DFL);
    return;
  }
  if (told.test_and_set()) {
    while (true) ::pause();
  }
  static char line[8192];
  size_t length = 0;
  for (const char* part : {"runahead: ", path, ": was cut short while it was in use, or cannot be read any more\n"}) {
    for (const char* c = part; *c != '\0' && length < std::size(line); ++c) line[length++] = *c;
  }
  (void)!::write(STDERR_FILENO, line, length);
  ::_exit(kFailed);
}

std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a handler may use it");

}  // namespace

Interrupts::Interrupts(std::initializer_list<int> signals, SecondSignal second) {
  interrupted = false;
  struct sigaction action {};
  action.sa_handler = [](int /*signal*/) { interrupted = true; };
  action.sa_flags = second == SecondSignal::kEndsTheProgram ? static_cast<int>(SA_RESETHAND) : 0;
  for (const int signal : signals) {
    before_.emplace_back(signal, action);
    ::sigaction(signal, &action, &before_.back().second);
  }
}

Interrupts::~Interrupts() {
  for (const auto& [signal, action] : before_) ::sigaction(signal, &action, nullptr);
}

bool Interrupts::Came() const { return interrupted; }

void Interrupts::Forget() { interrupted = false; }

void TurnSignalsIntoErrors() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  struct sigaction action {};
  action.sa_sigaction = EndForLostFile;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace runahead::cli
