// Processes that meet, each played by a thread.
#include "launch/rendezvous.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <future>

#include "runahead/error.h"

namespace runahead {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const char* const kSecret = "a secret of this group";

/// A port that was free a moment ago.
uint16_t FreePort() { return SocketListener(WireAddress::Parse("127.0.0.1:0")).address().port; }

class Rendezvous : public testing::Test {
 protected:
  Place PlaceOf(int rank, int ranks) const {
    return {.rank = rank,
            .ranks = ranks,
            .local_rank = rank,
            .master_host = "127.0.0.1",
            .master_port = port_,
            .launcher = "test"};
  }
  Introduction Of(int rank) const {
    return {{{"version", "1"}, {"model", "abc"}}, std::string("address\0", 8) + std::to_string(rank)};
  }
  std::future<Meeting> Start(int rank, int ranks, Introduction own, const std::string& secret = kSecret,
                             std::chrono::duration<double> wait = seconds(20)) const {
    return std::async(std::launch::async, [=, this] { return Meet(PlaceOf(rank, ranks), own, secret, After(wait)); });
  }

  uint16_t port_ = FreePort();
};

std::string Why(std::future<Meeting> meeting) {
  try {
    (void)meeting.get();
    return "they met";
  } catch (const Error& error) {
    return error.what();
  }
}

/// Nobody comes in while `meeting`, which must not succeed, goes on.
void ExpectNobody(Door& door, const std::future<Meeting>& meeting) {
  while (meeting.wait_for(seconds(0)) != std::future_status::ready) {
    EXPECT_FALSE(door.Await(After(milliseconds(20))).has_value());
  }
}

/// Stands between a process and the port that it calls, and keeps what the process says on its two connections.
class Eavesdropper {
 public:
  explicit Eavesdropper(uint16_t port) : port_(port), listener_(WireAddress::Parse("127.0.0.1:0")) {
    for (auto& passed : said_) {
      passed = std::async(std::launch::async, [this] { return Pass(); });
    }
  }
  [[nodiscard]] uint16_t port() const { return listener_.address().port; }
  /// Both, once the process has closed them.
  [[nodiscard]] std::vector<std::string> Said() { return {said_[0].get(), said_[1].get()}; }

 private:
  std::string Pass() {
    std::optional<Socket> process = listener_.Accept(After(seconds(20)));
    if (!process) return {};
    Socket rank = Socket::Connect({"127.0.0.1", port_, false}, After(seconds(20)));
    std::string said;
    std::array<char, 4096> buffer;
    while (true) {
      size_t got = 0;
      if (!process->ReadSome(buffer, After(milliseconds(5)), got).ok()) return said;
      said.append(buffer.data(), got);
      (void)rank.WriteAll({buffer.data(), got}, After(seconds(20)));
      if (!rank.ReadSome(buffer, After(milliseconds(5)), got).ok()) return said;
      (void)process->WriteAll({buffer.data(), got}, After(seconds(20)));
    }
  }

  uint16_t port_;
  SocketListener listener_;
  std::array<std::future<std::string>, 2> said_;
};

TEST_F(Rendezvous, AllLearnOfAllAndCanTalk) {
  std::vector<std::future<Meeting>> coming;
  for (const int rank : {2, 1, 0}) coming.push_back(Start(rank, 3, Of(rank)));
  std::vector<Meeting> met;
  for (auto& one : coming) met.push_back(one.get());
  for (const Meeting& meeting : met) {
    ASSERT_EQ(meeting.members.size(), 3U);
    for (int rank = 0; rank < 3; ++rank) {
      const MemberProcess& member = meeting.members.at(static_cast<size_t>(rank));
      EXPECT_EQ(member.rank, rank);
      EXPECT_EQ(member.host, HostName());
      EXPECT_EQ(member.address, Of(rank).address);
    }
  }
  Meeting& zero = met.at(2);
  ASSERT_EQ(zero.control.size(), 3U);
  ASSERT_EQ(zero.heartbeats.size(), 2U);
  for (const int rank : {1, 2}) {
    const std::string word = fmt::format("to rank {}", rank);
    ASSERT_TRUE(zero.control.at(static_cast<size_t>(rank))->Send(9, word, After(seconds(10))).ok());
    WireMessage message;
    ASSERT_TRUE(met.at(static_cast<size_t>(2 - rank)).control.front()->Await(message, After(seconds(10))).ok());
    EXPECT_EQ(message.payload, word);
  }
}

TEST_F(Rendezvous, ALostPlaceCanBeTakenAgain) {
  auto coming = Start(0, 3, Of(0));
  auto one = Start(1, 3, Of(1));
  auto two = Start(2, 3, Of(2));
  const Meeting zero = coming.get();
  (void)one.get();
  (void)two.get();
  auto twice = Start(1, 3, Of(1));
  ExpectNobody(*zero.door, twice);
  EXPECT_EQ(Why(std::move(twice)), fmt::format("process 1 came twice: from {0} and from {0}", HostName()));

  zero.door->Vacate(1);
  Introduction other = Of(1);
  other.facts[1].second = "xyz";
  auto another = Start(1, 3, other);
  ExpectNobody(*zero.door, another);
  EXPECT_EQ(Why(std::move(another)), fmt::format("process 1 on {} has model xyz, process 0 has abc", HostName()));

  Introduction again = Of(1);
  again.address = "elsewhere";
  auto back = Start(1, 3, again);
  const std::optional<Joiner> arrival = zero.door->Await(After(seconds(20)));
  ASSERT_TRUE(arrival.has_value());
  EXPECT_EQ(arrival->member.rank, 1);
  EXPECT_EQ(arrival->member.address, "elsewhere");
  const Meeting seen = back.get();
  ASSERT_EQ(seen.members.size(), 3U);
  EXPECT_EQ(seen.members[1].address, "elsewhere");
  EXPECT_EQ(seen.members[2].address, Of(2).address);
}

// A process is back among strangers: silent ones, and what another process said when it came, whole, cut and changed.
TEST_F(Rendezvous, StrangersDoNotKeepOutOneThatIsBack) {
  Eavesdropper eavesdropper(port_);
  auto coming = Start(0, 2, Of(0));
  Place overheard = PlaceOf(1, 2);
  overheard.master_port = eavesdropper.port();
  (void)Meet(overheard, Of(1), kSecret, After(seconds(20)));
  const Meeting zero = coming.get();
  const std::vector<std::string> said = eavesdropper.Said();
  zero.door->Vacate(1);

  std::vector<Socket> strangers;
  for (const std::string& words : said) {
    ASSERT_GT(words.size(), 72U);
    std::string changed = words;
    changed[50] = static_cast<char>(changed[50] ^ 1);
    for (const std::string& told : {words, words.substr(0, 20), words.substr(0, 60), words.substr(0, 80), changed}) {
      strangers.push_back(Socket::Connect({"127.0.0.1", port_, false}, After(seconds(10))));
      ASSERT_TRUE(strangers.back().WriteAll(told, After(seconds(10))).ok());
    }
  }
  for (int i = 0; i < 20; ++i) {
    strangers.push_back(Socket::Connect({"127.0.0.1", port_, false}, After(seconds(10))));
  }
  auto back = Start(1, 2, Of(1));
  const std::optional<Joiner> arrival = zero.door->Await(After(seconds(20)));
  ASSERT_TRUE(arrival.has_value());
  EXPECT_EQ(arrival->member.rank, 1);
  EXPECT_EQ(back.get().members.size(), 2U);
}

TEST_F(Rendezvous, OneAloneMeetsItself) {
  const Meeting meeting = Start(0, 1, Of(0)).get();
  EXPECT_EQ(meeting.members.size(), 1U);
  EXPECT_TRUE(meeting.heartbeats.empty());
}

TEST_F(Rendezvous, ADifferenceIsNamedToAll) {
  Introduction other = Of(2);
  other.facts[1].second = "xyz";
  auto zero = Start(0, 3, Of(0));
  auto one = Start(1, 3, Of(1));
  const std::string told = fmt::format("process 2 on {} has model xyz, process 0 has abc", HostName());
  EXPECT_EQ(Why(Start(2, 3, other)), told);
  EXPECT_EQ(Why(std::move(zero)), told);
  EXPECT_EQ(Why(std::move(one)), told);
}

TEST_F(Rendezvous, AnotherGroupSizeIsNamed) {
  auto zero = Start(0, 2, Of(0));
  const std::string told = fmt::format("process 1 on {} is one of 3, process 0 of 2", HostName());
  EXPECT_EQ(Why(Start(1, 3, Of(1))), told);
  EXPECT_EQ(Why(std::move(zero)), told);
}

TEST_F(Rendezvous, WhoDoesNotComeIsNamed) {
  auto zero = Start(0, 4, Of(0), kSecret, milliseconds(1500));
  auto two = Start(2, 4, Of(2), kSecret, milliseconds(1500));
  const std::string told = fmt::format("processes 1, 3 of 4 did not come to 127.0.0.1:{}", port_);
  EXPECT_EQ(Why(std::move(zero)), told);
  EXPECT_EQ(Why(std::move(two)), told);
  const std::string alone = Why(Start(1, 2, Of(1), kSecret, milliseconds(100)));
  EXPECT_EQ(alone,
            fmt::format("process 1: process 0 at 127.0.0.1:{0}: no connection to 127.0.0.1:{0}: Connection refused",
                        port_));
}

TEST_F(Rendezvous, StrangersDoNotKeepTheGroupApart) {
  auto zero = Start(0, 2, Of(0));
  Socket silent = Socket::Connect({"127.0.0.1", port_, false}, After(seconds(10)));
  Socket noisy = Socket::Connect({"127.0.0.1", port_, false}, After(seconds(10)));
  ASSERT_TRUE(noisy.WriteAll(std::string(5000, 'x'), After(seconds(10))).ok());
  const std::string stranger = Why(Start(1, 2, Of(1), "another secret"));
  EXPECT_NE(stranger.find("process 1: process 0 at 127.0.0.1:"), std::string::npos) << stranger;
  auto one = Start(1, 2, Of(1));
  EXPECT_EQ(one.get().members.size(), 2U);
  EXPECT_EQ(zero.get().members.size(), 2U);
}

TEST_F(Rendezvous, WithoutASecretOnThisHost) {
  auto zero = Start(0, 2, Of(0), "");
  EXPECT_EQ(Start(1, 2, Of(1), "").get().members.size(), 2U);
  EXPECT_EQ(zero.get().members.size(), 2U);
}

}  // namespace
}  // namespace runahead
