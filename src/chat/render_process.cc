#include "chat/render_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/json.h"
#include "chat/render_script.h"
#include "runahead/error.h"

namespace runahead::chat {
namespace {

constexpr double kStartSeconds = 20;  // a cold disk, and a machine that does much else
constexpr size_t kLongestReply = size_t{16} << 20;
constexpr const char* kUsualPath = "/usr/local/bin:/usr/bin:/bin";
constexpr const char* kWhatIsNeeded = "python3 with jinja2 is needed for chat templates: apt install python3-jinja2";

using Outcome = RenderProcess::Outcome;

/// Waits until the socket can be read or written.
Outcome Await(int fd, short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return Outcome::kLate;
    pollfd waits{fd, events, 0};
    const int ready = ::poll(&waits, 1, static_cast<int>(left));
    if (ready > 0) return Outcome::kReplied;
    if (ready < 0 && errno != EINTR) return Outcome::kDied;
  }
}

Outcome SendAll(int fd, std::string_view bytes, Deadline deadline) {
  while (!bytes.empty()) {
    if (const Outcome outcome = Await(fd, POLLOUT, deadline); outcome != Outcome::kReplied) return outcome;
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno != EAGAIN && errno != EINTR) {
      return Outcome::kDied;
    }
  }
  return Outcome::kReplied;
}

Outcome ReceiveAll(int fd, std::span<char> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    if (const Outcome outcome = Await(fd, POLLIN, deadline); outcome != Outcome::kReplied) return outcome;
    const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<size_t>(got));
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      return Outcome::kDied;
    }
  }
  return Outcome::kReplied;
}

std::array<char, 4> BigEndian(size_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

size_t FromBigEndian(const std::array<char, 4>& bytes) {
  size_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

Outcome Receive(int fd, Deadline deadline, std::string& message) {
  std::array<char, 4> size{};
  if (const Outcome outcome = ReceiveAll(fd, size, deadline); outcome != Outcome::kReplied) return outcome;
  if (FromBigEndian(size) > kLongestReply) return Outcome::kDied;
  message.resize(FromBigEndian(size));
  return ReceiveAll(fd, message, deadline);
}

/// Every python3 of PATH, first those that a shell takes first. Folders relative to where we are do not count.
std::vector<std::string> Pythons() {
  const char* variable = std::getenv("PATH");
  std::string_view rest = variable != nullptr ? variable : kUsualPath;
  std::vector<std::string> found;
  while (!rest.empty()) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(folder.size() + 1, rest.size()));
    std::string python = fmt::format("{}/python3", folder);
    if (folder.starts_with('/') && ::access(python.c_str(), X_OK) == 0) found.push_back(std::move(python));
  }
  return found;
}

/// What the process sees of our environment: how to find Python's parts, and the time of day.
std::vector<std::string> Environment() {
  std::vector<std::string> result = {"LC_ALL=C.UTF-8"};
  for (const char* name : {"PATH", "HOME", "TZ"}) {
    if (const char* value = std::getenv(name)) result.push_back(fmt::format("{}={}", name, value));
  }
  return result;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

/// How the process begins: our end of nothing but its socket, no signal blocked, and a group of its own, so that a
/// terminal's Ctrl-C is not for it.
class SpawnForm {
 public:
  explicit SpawnForm(int socket) {
    ::posix_spawn_file_actions_init(&files_);
    ::posix_spawn_file_actions_adddup2(&files_, socket, STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&files_, socket, STDOUT_FILENO);
    ::posix_spawn_file_actions_addopen(&files_, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addclosefrom_np(&files_, STDERR_FILENO + 1);
    ::posix_spawnattr_init(&attributes_);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnForm() {
    ::posix_spawnattr_destroy(&attributes_);
    ::posix_spawn_file_actions_destroy(&files_);
  }
  SpawnForm(const SpawnForm&) = delete;
  SpawnForm& operator=(const SpawnForm&) = delete;

  [[nodiscard]] const posix_spawn_file_actions_t* files() const { return &files_; }
  [[nodiscard]] const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t files_{};
  posix_spawnattr_t attributes_{};
};

/// Whether what a process said first is that it can render.
bool SaysReady(const std::string& greeting) {
  const Json json = Json::parse(greeting, nullptr, /*allow_exceptions=*/false);
  return json.is_object() && json.contains("ready");
}

}  // namespace

RenderProcess RenderProcess::Start() {
  for (const std::string& python : Pythons()) {
    RenderProcess process(python);
    std::string greeting;
    const Outcome outcome =
        Receive(process.socket_.get(), After(std::chrono::duration<double>(kStartSeconds)), greeting);
    if (outcome == Outcome::kReplied && SaysReady(greeting)) return process;
    if (outcome == Outcome::kLate) {
      throw IoError(fmt::format("{}: did not start within {} s to render chat templates", python, kStartSeconds));
    }
  }
  throw IoError(kWhatIsNeeded);
}

RenderProcess::RenderProcess(const std::string& python) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw IoError(fmt::format("{}: cannot make a socket: {}", python, std::strerror(errno)));
  }
  socket_ = Descriptor(ends[0]);
  const Descriptor other(ends[1]);
  std::vector<std::string> arguments = {python, "-I", "-B", "-c", RenderScript()};
  std::vector<std::string> environment = Environment();
  const SpawnForm form(other.get());
  const int error = ::posix_spawn(&pid_, python.c_str(), form.files(), form.attributes(), Pointers(arguments).data(),
                                  Pointers(environment).data());
  if (error != 0) {
    pid_ = -1;
    throw IoError(fmt::format("{}: cannot start: {}", python, std::strerror(error)));
  }
}

RenderProcess::RenderProcess(RenderProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), socket_(std::move(other.socket_)) {}

RenderProcess& RenderProcess::operator=(RenderProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(socket_, other.socket_);
  return *this;
}

bool RenderProcess::Runs() const {
  if (pid_ < 0) return false;
  siginfo_t ended{};
  return ::waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == 0;
}

void RenderProcess::Kill() {
  if (pid_ < 0) return;
  ::kill(-pid_, SIGKILL);  // with what it may have started
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  socket_.Close();
}

RenderProcess::Outcome RenderProcess::Ask(std::string_view request, Deadline deadline, std::string& reply) const {
  const std::array<char, 4> size = BigEndian(request.size());
  for (const std::string_view part : {std::string_view(size.data(), size.size()), request}) {
    const Outcome outcome = SendAll(socket_.get(), part, deadline);
    if (outcome != Outcome::kReplied) return outcome;
  }
  return Receive(socket_.get(), deadline, reply);
}

}  // namespace runahead::chat
