#include "tests/cli/conversation.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <fstream>
#include <stdexcept>
#include <utility>

namespace runahead {

Conversation::Conversation(const std::string& program, const std::vector<std::string>& arguments) {
  std::array<int, 2> in{};
  std::array<int, 2> out{};
  if (::pipe2(in.data(), O_CLOEXEC) != 0 || ::pipe2(out.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipes");
  child_ = ::fork();
  if (child_ < 0) throw std::runtime_error("cannot fork");
  if (child_ == 0) {
    if (::dup2(in[0], STDIN_FILENO) < 0 || ::dup2(out[1], STDOUT_FILENO) < 0) ::_exit(126);
    std::vector<char*> argv = {const_cast<char*>(program.c_str())};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  to_ = in[1];
  from_ = out[0];
}

Conversation::~Conversation() {
  End();
  ::close(from_);
}

void Conversation::Write(const std::string& text) {
  if (::write(to_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error("the program does not read");
  }
}

std::string Conversation::ReadLine() {
  while (came_.find('\n') == std::string::npos) {
    const std::string more = ReadBlock();
    if (more.empty()) return std::exchange(came_, {});
    came_ += more;
  }
  const size_t end = came_.find('\n');
  std::string line = came_.substr(0, end);
  came_.erase(0, end + 1);
  return line;
}

std::string Conversation::ReadBlock() {
  constexpr int kPatienceMs = 30'000;
  pollfd waiting{from_, POLLIN, 0};
  if (::poll(&waiting, 1, kPatienceMs) != 1) throw std::runtime_error("the program says nothing");
  std::ifstream status(fmt::format("/proc/{}/status", child_));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) peak_kib_ = std::max(peak_kib_, std::stol(line.substr(6)));
  }
  std::string block(size_t{1} << 16, '\0');
  const ssize_t got = ::read(from_, block.data(), block.size());
  block.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return block;
}

void Conversation::Signal(int number) const { ::kill(child_, number); }

int Conversation::End() {
  if (child_ < 0) return -1;
  ::close(to_);
  int status = 0;
  ::waitpid(std::exchange(child_, -1), &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace runahead
