#include "signals.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <iterator>

#include "base/file.h"

namespace runahead::cli {
namespace {

constexpr int kFailed = 1;

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

}  // namespace

void TurnSignalsIntoErrors() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  struct sigaction action {};
  action.sa_sigaction = EndForLostFile;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace runahead::cli
