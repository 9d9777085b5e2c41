// Connections between processes: who is taken, what arrives, and how soon its end is noticed.
#include "wire/channel.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <condition_variable>
#include <fstream>
#include <future>
#include <thread>

#include "runahead/error.h"
#include "tests/cli/process.h"
#include "wire/heartbeat.h"

namespace runahead {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::pair<Socket, Socket> Pair() {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  return {Socket(Descriptor(ends[0])), Socket(Descriptor(ends[1]))};
}

struct Ends {
  std::unique_ptr<Channel> connected;
  std::unique_ptr<Channel> listened;
};

/// Both ends of a channel over sockets that are connected already.
Ends Open(std::pair<Socket, Socket> sockets, const std::string& secret = "a secret of the group",
          const std::string& other_secret = "a secret of the group") {
  auto listened = std::async(std::launch::async, [&] {
    return Channel::Open(std::move(sockets.second), false, other_secret, After(seconds(10)));
  });
  Ends ends;
  ends.connected = Channel::Open(std::move(sockets.first), true, secret, After(seconds(10)));
  ends.listened = listened.get();
  return ends;
}

std::string WhyNotOpened(Socket socket, bool connected, std::string_view secret, Deadline deadline) {
  try {
    (void)Channel::Open(std::move(socket), connected, secret, deadline);
    return "it was";
  } catch (const Error& error) {
    return error.what();
  }
}

/// An address of this host that others could reach; empty: there is none.
std::string OwnAddress() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return {};
  std::string own;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET || (one->ifa_flags & IFF_LOOPBACK) != 0)
      continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    const auto* const address = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
    own = ::inet_ntop(AF_INET, &address->sin_addr, text.data(), text.size());
  }
  ::freeifaddrs(all);
  return own;
}

/// Carries bytes between two sockets until it is told to change them; keeps all of one direction.
class Courier {
 public:
  explicit Courier(std::pair<Socket, Socket> ends) : ends_(std::move(ends)) {
    forth_ = std::thread([this] { Carry(ends_.first, ends_.second, &kept_); });
    back_ = std::thread([this] { Carry(ends_.second, ends_.first, nullptr); });
  }
  ~Courier() {
    ends_.first.Shut();
    ends_.second.Shut();
    forth_.join();
    back_.join();
  }
  Courier(const Courier&) = delete;
  Courier& operator=(const Courier&) = delete;

  /// Waits until so many bytes went forth.
  std::string Kept(size_t bytes) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, seconds(10), [&] { return kept_.size() >= bytes; });
    return kept_;
  }
  void Inject(std::string_view bytes) { EXPECT_TRUE(ends_.second.WriteAll(bytes, After(seconds(10))).ok()); }

 private:
  void Carry(Socket& from, Socket& to, std::string* kept) {
    std::array<char, 4096> buffer;
    while (true) {
      size_t got = 0;
      if (!from.ReadSome(buffer, After(seconds(60)), got).ok() || got == 0) return;
      if (!to.WriteAll({buffer.data(), got}, After(seconds(10))).ok()) return;
      if (kept == nullptr) continue;
      const std::lock_guard lock(mutex_);
      kept->append(buffer.data(), got);
      changed_.notify_all();
    }
  }

  std::pair<Socket, Socket> ends_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string kept_;
  std::thread forth_;
  std::thread back_;
};

TEST(Channel, CarriesMessagesOfAnySizeBothWays) {
  SocketListener taking(WireAddress::Parse("127.0.0.1:0"));
  auto socket = Socket::Connect(taking.address(), After(seconds(10)));
  const Ends ends = Open({std::move(socket), std::move(*taking.Accept(After(seconds(10))))});
  const std::string large(500'000, 'x');
  auto sent = std::async(std::launch::async, [&] {
    return ends.connected->Send(7, {}, After(seconds(10))).ok() &&
           ends.connected->Send(8, large, After(seconds(10))).ok();
  });
  WireMessage message;
  ASSERT_TRUE(ends.listened->Await(message, After(seconds(10))).ok());
  EXPECT_EQ(message.type, 7);
  EXPECT_TRUE(message.payload.empty());
  ASSERT_TRUE(ends.listened->Await(message, After(seconds(10))).ok());
  EXPECT_EQ(message.payload, large);
  EXPECT_TRUE(sent.get());
  ASSERT_TRUE(ends.listened->Send(9, "back", After(seconds(10))).ok());
  ASSERT_TRUE(ends.connected->Await(message, After(seconds(10))).ok());
  EXPECT_EQ(message.payload, "back");
}

TEST(Channel, AWaitEndsAtItsDeadlineAndGoesOnLater) {
  const Ends ends = Open(Pair());
  std::optional<WireMessage> message;
  EXPECT_TRUE(ends.connected->Receive(message, After(milliseconds(5))).ok());
  EXPECT_FALSE(message.has_value());
  ASSERT_TRUE(ends.listened->Send(1, "late", After(seconds(10))).ok());
  ASSERT_TRUE(ends.connected->Receive(message, After(seconds(10))).ok());
  EXPECT_EQ(message.value().payload, "late");
  const std::string large(4 << 20, 'x');  // more than a socket buffers
  EXPECT_EQ(ends.connected->Send(1, large, After(milliseconds(5))).message(),
            "it took no message before the deadline");
  EXPECT_FALSE(ends.connected->Send(1, "x", After(seconds(10))).ok());  // half a message may be on its way
  EXPECT_EQ(ends.listened->Send(1, std::string(Channel::kMostBytes + 1, 'x'), After(seconds(1))).message(),
            "a message of 67108865 bytes; 67108864 at most");
}

TEST(Channel, StrangersAreTurnedAway) {
  auto one = Pair();
  auto wrong = std::async(std::launch::async, [&] {
    return WhyNotOpened(std::move(one.first), true, "another secret", After(seconds(10)));
  });
  EXPECT_EQ(WhyNotOpened(std::move(one.second), false, "the secret", After(seconds(10))),
            "this host: it does not know the secret");
  EXPECT_EQ(wrong.get(), "this host: it closed the connection");

  auto web = Pair();
  ASSERT_TRUE(web.first.WriteAll("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n     ", After(seconds(1))).ok());
  EXPECT_EQ(WhyNotOpened(std::move(web.second), false, "the secret", After(seconds(10))),
            "this host: it is no rank of Runahead's");

  auto newer = Pair();
  ASSERT_TRUE(newer.first.WriteAll("RUNWIRE2" + std::string(32, 'n'), After(seconds(1))).ok());
  EXPECT_EQ(WhyNotOpened(std::move(newer.second), false, "the secret", After(seconds(10))),
            "this host: it speaks version 2 of the protocol, this side 1");

  auto silent = Pair();
  EXPECT_EQ(WhyNotOpened(std::move(silent.second), false, "the secret", After(milliseconds(20))),
            "this host: it did not answer before the deadline");
}

TEST(Channel, AnEchoIsTurnedAway) {
  auto echo = Pair();
  auto opened = std::async(std::launch::async, [&] {
    return WhyNotOpened(std::move(echo.second), true, "the secret", After(seconds(10)));
  });
  std::array<char, 40> greeting{};
  size_t got = 0;
  ASSERT_TRUE(echo.first.ReadSome(greeting, After(seconds(10)), got).ok());
  ASSERT_EQ(got, greeting.size());
  ASSERT_TRUE(echo.first.WriteAll({greeting.data(), got}, After(seconds(10))).ok());
  EXPECT_EQ(opened.get(), "this host: it sends back what it gets");
}

TEST(Channel, WithoutASecretOnlyThisHostIsTaken) {
  EXPECT_NE(Open(Pair(), "", "").connected, nullptr);
  SocketListener listener(WireAddress::Parse("0.0.0.0:0"));
  const std::string host = OwnAddress();
  if (host.empty()) GTEST_SKIP() << "this host has no address but loopback";
  auto socket = Socket::Connect({host, listener.address().port, false}, After(seconds(10)));
  EXPECT_FALSE(socket.is_local());
  EXPECT_EQ(WhyNotOpened(std::move(socket), true, "", After(seconds(10))),
            host + " is not this host: ranks on several hosts need a secret that they share (--secret-file)");
}

TEST(Channel, ReplayedAndChangedMessagesEndIt) {
  for (const bool replay : {true, false}) {
    auto left = Pair();
    auto right = Pair();
    Courier courier({std::move(left.second), std::move(right.first)});
    const Ends ends = Open({std::move(left.first), std::move(right.second)});
    constexpr size_t kHandshake = 40 + 32;
    ASSERT_TRUE(ends.connected->Send(1, "pay once", After(seconds(10))).ok());
    WireMessage message;
    ASSERT_TRUE(ends.listened->Await(message, After(seconds(10))).ok());
    constexpr size_t kFrame = 16 + 8 + 32;
    std::string frame = courier.Kept(kHandshake + kFrame).substr(kHandshake);
    ASSERT_EQ(frame.size(), kFrame);
    if (!replay) frame[18] = 'n';
    courier.Inject(frame);
    EXPECT_EQ(ends.listened->Await(message, After(seconds(10))).message(),
              replay ? "message 0 came in place of message 1"
                     : "a message came that is not from it, or was changed on its way");
    EXPECT_FALSE(ends.listened->Await(message, After(seconds(10))).ok());
  }
}

TEST(Channel, AMessageOfAnotherConnectionEndsIt) {
  auto left = Pair();
  auto right = Pair();
  Courier courier({std::move(left.second), std::move(right.first)});
  const Ends first = Open({std::move(left.first), std::move(right.second)});
  ASSERT_TRUE(first.connected->Send(1, "pay once", After(seconds(10))).ok());
  const std::string frame = courier.Kept(40 + 32 + 56).substr(40 + 32);
  auto left2 = Pair();
  auto right2 = Pair();
  Courier second_courier({std::move(left2.second), std::move(right2.first)});
  const Ends second = Open({std::move(left2.first), std::move(right2.second)});
  second_courier.Inject(frame);
  WireMessage message;
  EXPECT_EQ(second.listened->Await(message, After(seconds(10))).message(),
            "a message came that is not from it, or was changed on its way");
}

TEST(Channel, AnAnnouncedSizeBeyondTheMostIsRefused) {
  auto left = Pair();
  auto right = Pair();
  Courier courier({std::move(left.second), std::move(right.first)});
  const Ends ends = Open({std::move(left.first), std::move(right.second)});
  courier.Inject(std::string(16, '\xff'));
  WireMessage message;
  EXPECT_EQ(ends.listened->Await(message, After(seconds(10))).message(),
            "it announced a message of 4294967295 bytes; 67108864 at most");
}

TEST(WireAddress, IsReadAndRefused) {
  EXPECT_EQ(WireAddress::Parse("[::1]:80").text(), "[::1]:80");
  EXPECT_EQ(WireAddress::Parse("a.example:65535").text(), "a.example:65535");
  EXPECT_EQ(WireAddress::Parse("unix:/tmp/x").text(), "unix:/tmp/x");
  for (const char* text : {"", "host", "host:", ":80", "host:65536", "host:80x", "unix:"}) {
    EXPECT_THROW((void)WireAddress::Parse(text), ConfigError) << text;
  }
}

TEST(Socket, UnixSocketsConnectAndMissingOnesEndAtTheDeadline) {
  const TemporaryFolder folder;
  const WireAddress address = WireAddress::Parse("unix:" + (folder / "socket"));
  try {
    (void)Socket::Connect(address, After(milliseconds(20)));
    FAIL();
  } catch (const LinkError& error) {
    EXPECT_EQ(std::string(error.what()), "no connection to " + address.text() + ": No such file or directory");
  }
  SocketListener listener(address);
  EXPECT_FALSE(listener.Accept(After(milliseconds(5))).has_value());
  const Socket socket = Socket::Connect(address, After(seconds(10)));
  EXPECT_TRUE(listener.Accept(After(seconds(10))).has_value());
  EXPECT_TRUE(socket.is_local());
}

TEST(Secret, IsReadFromAFileThatNobodyElseMayRead) {
  const TemporaryFolder folder;
  const std::string path = folder / "secret";
  std::ofstream(path) << "0123456789abcdef\n";
  std::filesystem::permissions(path, std::filesystem::perms(0640));
  EXPECT_THROW((void)ReadSecret(path), ConfigError);
  std::filesystem::permissions(path, std::filesystem::perms(0600));
  EXPECT_EQ(ReadSecret(path), "0123456789abcdef");
  std::ofstream(path) << "short\n";
  EXPECT_THROW((void)ReadSecret(path), ConfigError);
}

// RFC 4231, test case 2.
TEST(Secret, MacsAreHmacSha256) {
  const Mac mac = MacOf("Jefe", {"what do ya want ", "for nothing?"});
  std::string hex;
  for (const char byte : mac) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  EXPECT_EQ(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

/// What a heartbeat reported.
class Reports {
 public:
  Heartbeat::OnLost Into() {
    return [this](int rank, const std::string& host, const std::string& why) {
      const std::lock_guard lock(mutex_);
      lost_.push_back(fmt::format("rank {} on {}: {}", rank, host, why));
      changed_.notify_all();
    };
  }
  std::vector<std::string> Await(size_t count, std::chrono::duration<double> wait = seconds(10)) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, wait, [&] { return lost_.size() >= count; });
    return lost_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lost_;
};

/// A busy machine can keep a thread waiting for half a second.
constexpr HeartbeatOptions kPatient{milliseconds(10), milliseconds(1500)};

std::unique_ptr<Heartbeat> Beating(std::unique_ptr<Channel> channel, int rank, const std::string& host,
                                   Reports& into) {
  std::vector<HeartbeatPeer> peers;
  peers.push_back({rank, host, std::move(channel)});
  return std::make_unique<Heartbeat>(std::move(peers), into.Into(), kPatient);
}

// Rank 0 has a connection to each of the others.
TEST(Heartbeat, SilenceAndEndsAreReportedToAll) {
  Ends one = Open(Pair());
  Ends two = Open(Pair());
  Ends three = Open(Pair());
  Reports at_zero;
  Reports at_one;
  std::vector<HeartbeatPeer> peers;
  peers.push_back({1, "a", std::move(one.connected)});
  peers.push_back({2, "b", std::move(two.connected)});
  peers.push_back({3, "c", std::move(three.connected)});
  auto zero = std::make_unique<Heartbeat>(std::move(peers), at_zero.Into(), kPatient);
  auto first = Beating(std::move(one.listened), 0, "z", at_one);
  two.listened.reset();  // dies
  EXPECT_EQ(at_zero.Await(1), std::vector<std::string>{"rank 2 on b: it closed the connection"});
  EXPECT_EQ(at_one.Await(1), std::vector<std::string>{"rank 2 on b: it closed the connection"});
  const std::vector<std::string> lost = at_zero.Await(2);  // rank 3 never says a word
  ASSERT_EQ(lost.size(), 2U);
  EXPECT_EQ(lost[1].rfind("rank 3 on c: no sign of life for ", 0), 0U) << lost[1];
  EXPECT_EQ(at_one.Await(2), lost);
  zero.reset();  // leaves in peace
  EXPECT_EQ(at_one.Await(3, milliseconds(50)), lost);
}

TEST(Heartbeat, OneThatIsBackIsMissedAgain) {
  Reports reports;
  Ends first = Open(Pair());
  const auto zero = Beating(std::move(first.connected), 1, "a", reports);
  first.listened.reset();
  EXPECT_EQ(reports.Await(1).size(), 1U);
  Ends second = Open(Pair());
  zero->Add({1, "b", std::move(second.connected)});
  second.listened.reset();
  const std::vector<std::string> lost = reports.Await(2);
  ASSERT_EQ(lost.size(), 2U);
  EXPECT_EQ(lost[1], "rank 1 on b: it closed the connection");
}

TEST(Heartbeat, BeatsKeepAConnectionAlive) {
  Ends ends = Open(Pair());
  Reports left;
  Reports right;
  const auto a = Beating(std::move(ends.connected), 1, "a", left);
  const auto b = Beating(std::move(ends.listened), 0, "b", right);
  EXPECT_TRUE(left.Await(1, seconds(3)).empty());
  EXPECT_TRUE(right.Await(1, milliseconds(0)).empty());
}

}  // namespace
}  // namespace runahead
