// A network in user space, for kernels without netem: hosts are TUN devices, and every packet between two of them
// takes its time, or is lost.
//   network_relay RATE_MBIT DELAY_MS LOSS_SHARE STALL_S EVERY_S SEED DEVICE...
// Makes one TUN device for each name, says "ready", and goes on until its stdin ends. The host of the n-th device has
// an IPv4 address that ends in n. What leaves a host goes one packet after the other at RATE_MBIT, as does what
// enters it; each way takes DELAY_MS more. Every EVERY_S seconds the whole network stands still for STALL_S.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <queue>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr size_t kMostBytes = 65536;  // bytes of a packet
constexpr double kMostQueued = 0.1;   // time, s, that a packet waits at most to leave or to enter: then it is lost
constexpr size_t kIpv4Header = 20;    // bytes
constexpr size_t kLastOfDestination = 19;  // place of the last byte of the address that a packet goes to

struct Network {
  double bytes_per_s = 0;
  double delay_s = 0;
  double loss = 0;  // share of the packets
  double stall_s = 0;
  double every_s = 0;
  uint64_t seed = 0;
};

struct Packet {
  double due_s = 0;
  uint64_t number = 0;  // number in the order of arrival, which equal times keep
  size_t to = 0;
  std::vector<char> bytes;
};
struct Later {
  bool operator()(const Packet& a, const Packet& b) const {
    return a.due_s != b.due_s ? a.due_s > b.due_s : a.number > b.number;
  }
};

class Relay {
 public:
  Relay(const Network& network, const std::vector<std::string>& devices)
      : network_(network), random_(network.seed), leaves_free_s_(devices.size()), enters_free_s_(devices.size()) {
    for (const std::string& device : devices) tuns_.push_back(Open(device));
  }
  ~Relay() {
    for (const int tun : tuns_) ::close(tun);
  }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  /// Until stdin ends.
  void Run() {
    std::vector<pollfd> waits{{STDIN_FILENO, POLLIN, 0}};
    for (const int tun : tuns_) waits.push_back({tun, POLLIN, 0});
    while (true) {
      const double wait_s = due_.empty() ? 1 : std::max(0.0, due_.top().due_s - Now());
      const auto whole = static_cast<time_t>(wait_s);
      const timespec wait{whole, static_cast<long>((wait_s - static_cast<double>(whole)) * 1e9)};
      if (::ppoll(waits.data(), waits.size(), &wait, nullptr) < 0 && errno != EINTR) Throw("ppoll");
      if (waits.front().revents != 0) return;
      for (size_t from = 0; from < tuns_.size(); ++from) {
        if (waits[from + 1].revents != 0) TakeAll(from);
      }
      Deliver();
    }
  }

 private:
  [[noreturn]] static void Throw(const std::string& what) {
    throw std::system_error(errno, std::generic_category(), what);
  }

  static int Open(const std::string& name) {
    const int tun = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0) Throw("/dev/net/tun");
    ifreq request{};
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    if (::ioctl(tun, TUNSETIFF, &request) != 0) Throw(name);
    return tun;
  }

  [[nodiscard]] double Now() const { return Seconds(Clock::now() - begin_).count(); }

  /// All that has left a host.
  void TakeAll(size_t from) {
    while (true) {
      const ssize_t bytes = ::read(tuns_[from], buffer_.data(), buffer_.size());
      if (bytes < 0) return;
      Take(from, static_cast<size_t>(bytes));
    }
  }

  void Take(size_t from, size_t bytes) {
    if (bytes < kIpv4Header || buffer_[0] >> 4 != 4) return;
    const auto to = static_cast<size_t>(static_cast<unsigned char>(buffer_[kLastOfDestination])) - 1;
    if (to >= tuns_.size() || to == from) return;
    const double now = Now();
    if (std::uniform_real_distribution<double>()(random_) < network_.loss) return;
    const double seconds = static_cast<double>(bytes) / network_.bytes_per_s;
    const double left = std::max(now, leaves_free_s_[from]) + seconds;
    const double entered = std::max(left - seconds, enters_free_s_[to]) + seconds;
    if (entered - now > kMostQueued) return;
    leaves_free_s_[from] = left;
    enters_free_s_[to] = entered;
    due_.push({Moving(entered + network_.delay_s), ++packets_, to, {buffer_.data(), buffer_.data() + bytes}});
  }

  /// `time`, or the end of the stall that it is in.
  [[nodiscard]] double Moving(double time) const {
    if (network_.stall_s <= 0) return time;
    const double begin = std::floor(time / network_.every_s) * network_.every_s;
    return begin > 0 && time < begin + network_.stall_s ? begin + network_.stall_s : time;
  }

  void Deliver() {
    for (const double now = Now(); !due_.empty() && due_.top().due_s <= now; due_.pop()) {
      const Packet& packet = due_.top();
      (void)!::write(tuns_[packet.to], packet.bytes.data(), packet.bytes.size());  // a host that is down loses it
    }
  }

  Network network_;
  std::mt19937_64 random_;
  Clock::time_point begin_ = Clock::now();
  std::vector<int> tuns_;
  std::vector<double> leaves_free_s_;  // [hosts]
  std::vector<double> enters_free_s_;  // [hosts]
  std::priority_queue<Packet, std::vector<Packet>, Later> due_;
  uint64_t packets_ = 0;
  std::array<char, kMostBytes> buffer_{};
};

double ParseNumber(const char* name, const std::string& text, double least) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !(number >= least)) {
    throw std::invalid_argument(fmt::format("{}: expected a number from {} on, got '{}'", name, least, text));
  }
  return number;
}

void Run(const std::vector<std::string>& arguments) {
  constexpr size_t kNumbers = 6;
  if (arguments.size() < kNumbers + 2) {
    throw std::invalid_argument("RATE_MBIT DELAY_MS LOSS_SHARE STALL_S EVERY_S SEED DEVICE DEVICE...");
  }
  Network network;
  network.bytes_per_s = ParseNumber("RATE_MBIT", arguments[0], 1e-3) * 1e6 / 8;
  network.delay_s = ParseNumber("DELAY_MS", arguments[1], 0) * 1e-3;
  network.loss = ParseNumber("LOSS_SHARE", arguments[2], 0);
  network.stall_s = ParseNumber("STALL_S", arguments[3], 0);
  network.every_s = ParseNumber("EVERY_S", arguments[4], network.stall_s);
  network.seed = static_cast<uint64_t>(ParseNumber("SEED", arguments[5], 0));
  Relay relay(network, {arguments.begin() + kNumbers, arguments.end()});
  fmt::print("ready\n");
  (void)std::fflush(stdout);
  relay.Run();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Run({argv + 1, argv + argc});
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "network_relay: {}\n", error.what());
    return 1;
  }
}
