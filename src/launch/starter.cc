#include "launch/starter.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "base/deadline.h"
#include "base/descriptor.h"
#include "runahead/error.h"
#include "wire/secret.h"
#include "wire/socket.h"

extern "C" char** environ;

namespace runahead {
namespace {

[[noreturn]] void Refuse(const char* what) {
  throw IoError(fmt::format("{}: {}", what, std::generic_category().message(errno)));
}

std::string Hex(std::string_view bytes) {
  std::string digits;
  for (const char byte : bytes) digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return digits;
}

std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char letter : text) {
    if (letter == '\'') quoted += "'\\'";
    quoted += letter;
  }
  quoted += '\'';
  return quoted;
}

/// A file without a name that holds `secret`; processes that are started inherit it.
Descriptor SecretFile(const std::string& secret) {
  Descriptor file(::memfd_create("runahead-secret", 0));
  if (!file || ::fchmod(file.get(), 0600) != 0 || WriteAll(file.get(), secret) != 0) Refuse("no file for the secret");
  return file;
}

using Variables = std::vector<std::pair<std::string, std::string>>;

/// What a host's shell runs: it reads the secret from its stdin, which no other user sees, and keeps it in a file for
/// the command alone.
std::string RemoteScript(const Variables& variables, const std::vector<std::string>& command) {
  std::string exported;
  for (const auto& [name, value] : variables) exported += fmt::format("export {}={}; ", name, Quoted(value));
  std::string words;
  for (const std::string& word : command) words.append(" ").append(Quoted(word));
  return fmt::format(
      "IFS= read -r s; umask 077; f=$(mktemp) || exit 1; printf %s \"$s\" >\"$f\"; unset s; cd {} 2>/dev/null; "
      "{}RUNAHEAD_SECRET_FILE=\"$f\"{} </dev/null; r=$?; rm -f \"$f\"; exit $r",
      Quoted(std::filesystem::current_path().string()), exported, words);
}

/// Signals that the loop reads from a descriptor while this lives.
class Signals {
 public:
  Signals() {
    sigset_t wanted;
    ::sigemptyset(&wanted);
    for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&wanted, signal);
    ::pthread_sigmask(SIG_BLOCK, &wanted, &before_);
    descriptor_ = Descriptor(::signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC));
    if (!descriptor_) Refuse("no signalfd");
  }
  ~Signals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  [[nodiscard]] int fd() const { return descriptor_.get(); }
  [[nodiscard]] const sigset_t& before() const { return before_; }
  std::optional<signalfd_siginfo> Next() const {
    signalfd_siginfo info{};
    if (::read(fd(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return std::nullopt;
    return info;
  }

 private:
  sigset_t before_{};
  Descriptor descriptor_;
};

class Starter {
 public:
  Starter(const StartOptions& options, const std::function<void(std::string_view)>& say)
      : options_(options), say_(say), secret_(Hex(TextOf(NewNonce()))), secret_file_(SecretFile(secret_)) {
    const SocketListener free(WireAddress::Parse("127.0.0.1:0"));
    port_ = free.address().port;
    children_.resize(static_cast<size_t>(options.ranks));
    for (int rank = 0; rank < options.ranks; ++rank) Start(rank);
  }

  ~Starter() {
    for (Child& child : children_) {
      if (child.pid == 0) continue;
      (void)::kill(child.pid, SIGKILL);
      (void)::waitpid(child.pid, nullptr, 0);
    }
  }
  Starter(const Starter&) = delete;
  Starter& operator=(const Starter&) = delete;

  int Run() {
    while (Running()) {
      Await();
      while (const auto info = signals_.Next()) Meet(*info);
      Reap();
      if (until_.has_value() && Clock::now() >= *until_) Hurry();
    }
    for (Child& child : children_) Drain(child, /*last=*/true);
    return code_;
  }

 private:
  struct Child {
    int rank = 0;
    int restarts = 0;
    pid_t pid = 0;   // 0: it ended
    Descriptor err;  // its stderr
    std::string line;
  };

  [[nodiscard]] bool Running() const {
    return std::any_of(children_.begin(), children_.end(), [](const Child& child) { return child.pid != 0; });
  }

  [[nodiscard]] Variables VariablesOf(int rank) const {
    const bool remote = !options_.hosts.empty();
    int local = rank;
    if (remote) {
      const auto& hosts = options_.hosts;
      local = static_cast<int>(std::count(hosts.begin(), hosts.begin() + rank, hosts.at(static_cast<size_t>(rank))));
    }
    return {{"RANK", std::to_string(rank)},
            {"WORLD_SIZE", std::to_string(options_.ranks)},
            {"LOCAL_RANK", std::to_string(local)},
            {"MASTER_ADDR", remote ? options_.hosts.front() : "127.0.0.1"},
            {"MASTER_PORT", std::to_string(port_)}};
  }

  void Start(int rank) {
    int err[2];
    int in[2] = {-1, -1};
    const bool remote = !options_.hosts.empty();
    if (::pipe2(err, O_CLOEXEC) != 0 || (remote && ::pipe2(in, O_CLOEXEC) != 0)) Refuse("no pipe");
    Child& child = children_.at(static_cast<size_t>(rank));
    child.rank = rank;
    child.err = Descriptor(err[0]);
    Descriptor own_err(err[1]);
    Descriptor own_in(in[0]);
    Descriptor to(in[1]);
    const std::vector<std::string> words = Words(rank);
    const std::vector<std::string> variables = EnvironmentOf(rank);
    child.pid = ::fork();
    if (child.pid < 0) Refuse("no process");
    if (child.pid == 0) Become(rank, words, variables, own_err.get(), own_in.get());
    (void)::fcntl(child.err.get(), F_SETFL, O_NONBLOCK);
    if (remote) (void)WriteAll(to.get(), secret_ + "\n");
  }

  [[nodiscard]] std::vector<std::string> Words(int rank) const {
    if (options_.hosts.empty()) return options_.command;
    return {options_.ssh,
            "-o",
            "BatchMode=yes",
            "--",
            options_.hosts.at(static_cast<size_t>(rank)),
            RemoteScript(VariablesOf(rank), options_.command)};
  }

  /// This process's environment with what a rank is told in place of what it was told itself.
  [[nodiscard]] std::vector<std::string> EnvironmentOf(int rank) const {
    Variables set = VariablesOf(rank);
    set.emplace_back("RUNAHEAD_SECRET_FILE", fmt::format("/dev/fd/{}", secret_file_.get()));
    if (!options_.hosts.empty()) set.clear();  // the script has them
    std::vector<std::string> all;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string_view text = *entry;
      const std::string_view name = text.substr(0, text.find('='));
      if (std::none_of(set.begin(), set.end(), [&](const auto& one) { return one.first == name; }))
        all.emplace_back(text);
    }
    for (const auto& [name, value] : set) all.push_back(fmt::format("{}={}", name, value));
    return all;
  }

  /// Becomes the command, in the child: nothing here may allocate or throw.
  [[noreturn]] void Become(int rank, const std::vector<std::string>& words, const std::vector<std::string>& variables,
                           int err, int in) const {
    (void)::prctl(PR_SET_PDEATHSIG, SIGTERM);
    const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (in >= 0) {
      (void)::dup2(in, STDIN_FILENO);
    } else if (rank != 0) {
      (void)::dup2(nothing, STDIN_FILENO);
    }
    if (rank != 0) (void)::dup2(nothing, STDOUT_FILENO);
    (void)::dup2(err, STDERR_FILENO);
    (void)::pthread_sigmask(SIG_SETMASK, &signals_.before(), nullptr);
    std::array<char*, kMostWords + 1> argv{};
    for (size_t i = 0; i < words.size() && i < kMostWords; ++i) argv.at(i) = const_cast<char*>(words[i].c_str());
    std::array<char*, kMostWords + 1> envp{};
    for (size_t i = 0; i < variables.size() && i < kMostWords; ++i)
      envp.at(i) = const_cast<char*>(variables[i].c_str());
    ::execvpe(argv.front(), argv.data(), envp.data());
    (void)!::write(STDERR_FILENO, "cannot be started: ", 19);
    const char* const why = ::strerrordesc_np(errno);
    (void)!::write(STDERR_FILENO, why, std::strlen(why));
    (void)!::write(STDERR_FILENO, "\n", 1);
    ::_exit(127);
  }

  void Await() {
    std::vector<pollfd> waits{pollfd{signals_.fd(), POLLIN, 0}};
    for (const Child& child : children_) {
      if (child.err) waits.push_back({child.err.get(), POLLIN, 0});
    }
    int timeout_ms = -1;
    if (until_.has_value()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until_ - Clock::now()).count();
      timeout_ms = static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
    }
    (void)::poll(waits.data(), waits.size(), timeout_ms);
    for (Child& child : children_) Drain(child, /*last=*/false);
  }

  /// Says the lines that `child` wrote; with `last` what is no whole line, too.
  void Drain(Child& child, bool last) {
    std::array<char, 4096> buffer;
    while (child.err) {
      const ssize_t got = ::read(child.err.get(), buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) break;
      if (got <= 0) child.err.Close();
      if (got > 0) child.line.append(buffer.data(), static_cast<size_t>(got));
      SayLines(child);
    }
    if (last && !child.line.empty()) say_(fmt::format("[{}] {}", child.rank, std::exchange(child.line, "")));
  }

  void SayLines(Child& child) {
    size_t begin = 0;
    for (size_t end = child.line.find('\n'); end != std::string::npos; end = child.line.find('\n', begin)) {
      say_(fmt::format("[{}] {}", child.rank, std::string_view(child.line).substr(begin, end - begin)));
      begin = end + 1;
    }
    child.line.erase(0, begin);
  }

  /// A signal to this process. A terminal's came to the ranks already, and what Ctrl-C ends is theirs to say.
  void Meet(const signalfd_siginfo& info) {
    const auto signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGCHLD) return;
    if (signal == SIGINT && info.ssi_code == SI_KERNEL) {
      interrupted_ = true;
      return;
    }
    if (info.ssi_code != SI_KERNEL) SendAll(signal);
    asked_to_end_ = true;
    if (code_ == 0) code_ = 128 + signal;
    if (!until_.has_value()) until_ = Clock::now() + options_.grace;
  }

  void SendAll(int signal) {
    for (const Child& child : children_) {
      if (child.pid != 0) (void)::kill(child.pid, signal);
    }
  }

  void Reap() {
    for (Child& child : children_) {
      int status = 0;
      if (child.pid == 0 || ::waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
      child.pid = 0;
      Drain(child, /*last=*/false);
      const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      if (!asked_to_end_ && !until_) Judge(child, status, code);
    }
  }

  /// What the end of `child` means for the others.
  void Judge(Child& child, int status, int code) {
    const bool dispensable = options_.restarts && child.rank != 0;
    if (interrupted_ && code == 128 + SIGINT) {
      asked_to_end_ = true;
      return EndOthers(code);
    }
    if (code == 0) {
      if (options_.restarts && !dispensable) EndOthers(code);
      return;
    }
    const bool again = dispensable && child.restarts < *options_.restarts;
    say_(fmt::format("rank {}{} {}{}", child.rank, HostOf(child.rank),
                     WIFSIGNALED(status) ? fmt::format("was killed by signal {} ({})", WTERMSIG(status),
                                                       ::sigdescr_np(WTERMSIG(status)))
                                         : fmt::format("ended with exit code {}", code),
                     again ? ", and is started again" : ""));
    if (again) return Restart(child);
    if (!dispensable) EndOthers(code);
  }

  void EndOthers(int code) {
    code_ = code;
    if (Running()) until_ = Clock::now() + options_.grace;
  }

  void Restart(Child& child) {
    Drain(child, /*last=*/true);
    ++child.restarts;
    Start(child.rank);
  }

  [[nodiscard]] std::string HostOf(int rank) const {
    return options_.hosts.empty() ? "" : " on " + options_.hosts.at(static_cast<size_t>(rank));
  }

  /// The grace is over.
  void Hurry() {
    const int signal = std::exchange(terminated_, true) ? SIGKILL : SIGTERM;
    SendAll(signal);
    until_ = Clock::now() + options_.grace;
  }

  static constexpr size_t kMostWords = 4096;

  const StartOptions& options_;
  const std::function<void(std::string_view)>& say_;
  std::string secret_;
  Descriptor secret_file_;
  uint16_t port_ = 0;
  Signals signals_;
  std::vector<Child> children_;
  int code_ = 0;
  bool interrupted_ = false;  // by Ctrl-C
  bool asked_to_end_ = false;
  bool terminated_ = false;
  std::optional<Clock::time_point> until_;  // the end of a grace
};

}  // namespace

int StartRanks(const StartOptions& options, const std::function<void(std::string_view)>& say) {
  return Starter(options, say).Run();
}

}  // namespace runahead
