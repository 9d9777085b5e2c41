// Signals that a file raises, turned into one line.
#pragma once

namespace runahead::cli {

/// From now on a closed pipe and a file over the limit on sizes (SIGPIPE, SIGXFSZ) are errors of the call that
/// writes, and a mapped file that somebody cuts short (SIGBUS) ends the program with exit code 1 and one line that
/// names it.
void TurnSignalsIntoErrors();

}  // namespace runahead::cli
