// Ranks in processes of their own: this program again, started with what they need to know.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>
#include <string_view>

#include "base/descriptor.h"
#include "link/fabric_table.h"
#include "link/local/local_fabric.h"
#include "link/ucx/ucx_fabric.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr KvShape kShape{.layers = 4, .kv_heads = 2, .head_dim = 64, .dtype = DType::kF32};
constexpr int64_t kTokens = 600;

float ValueAt(int rank, int layer, int64_t i) { return static_cast<float>(rank * 1000 + layer) + 0.25F * (i % 97); }

void Fill(const KvCache& cache, int rank, int64_t begin, int64_t end) {
  for (int layer = 0; layer < kShape.layers; ++layer) {
    const KvSpan span = cache.Span(layer, begin, end);
    for (int64_t i = 0; i < span.k.shape().elements(); ++i) {
      span.k.As<float>()[i] = ValueAt(rank, layer, i);
      span.v.As<float>()[i] = -ValueAt(rank, layer, i);
    }
  }
}

bool Holds(const KvCache& cache, int rank, int64_t begin, int64_t end) {
  for (int layer = 0; layer < kShape.layers; ++layer) {
    const KvSpan span = cache.Span(layer, begin, end);
    for (int64_t i = 0; i < span.k.shape().elements(); ++i) {
      if (span.k.As<float>()[i] != ValueAt(rank, layer, i)) return false;
      if (span.v.As<float>()[i] != -ValueAt(rank, layer, i)) return false;
    }
  }
  return true;
}

// What crosses the pipes between a test and its processes: strings behind their lengths.
void Tell(int fd, const std::string& text) {
  const auto bytes = static_cast<uint32_t>(text.size());
  (void)WriteAll(fd, {reinterpret_cast<const char*>(&bytes), sizeof bytes});
  (void)WriteAll(fd, text);
}

std::string Hear(int fd) {
  const auto read = [&](char* to, size_t bytes) {
    while (bytes > 0) {
      const ssize_t got = ReadSome(fd, {to, bytes});
      if (got <= 0) return false;
      to += got;
      bytes -= static_cast<size_t>(got);
    }
    return true;
  };
  uint32_t bytes = 0;
  if (!read(reinterpret_cast<char*>(&bytes), sizeof bytes)) return "the process ended";
  std::string text(bytes, '\0');
  return read(text.data(), text.size()) ? text : "the process ended";
}

/// The other end of a process's pipes, seen from within it or from the test.
struct Talk {
  Descriptor in;
  Descriptor out;
};

/// A rank of its own process. It tells its address, hears the group, and then does what it hears:
///   send N       rows [0, 300) of layers 0 to N - 1 to rank 0, then waits
///   receive      rows [300, 600) of all layers from rank 0, and says whether they are right
///   end          ends
class Served {
 public:
  explicit Served(const char* rank) : rank_(std::atoi(rank)) {
    Tell(STDOUT_FILENO, port_->address());
    UcxGroup group;
    group.id = std::stoull(Hear(STDIN_FILENO));
    const int ranks = std::stoi(Hear(STDIN_FILENO));
    for (int peer = 0; peer < ranks; ++peer) group.peers.push_back({Hear(STDIN_FILENO), ""});
    group.own = {{rank_, nullptr}};
    port_->Register(cache_.memory());
    fabric_ = MakeUcxFabric(port_, group);
  }
  ~Served() { port_->Forget(cache_.memory()); }

  void Serve() {
    Fill(cache_, rank_, 0, 300);
    for (std::string asked = Hear(STDIN_FILENO); asked.starts_with("send ") || asked == "receive";
         asked = Hear(STDIN_FILENO)) {
      Tell(STDOUT_FILENO, asked == "receive" ? Receive() : Send(std::stoi(asked.substr(5))));
    }
  }

 private:
  std::string Send(int layers) {
    std::vector<std::unique_ptr<Transfer>> sent;
    for (int layer = 0; layer < layers; ++layer) {
      sent.push_back(fabric_->Between(rank_, 0).Send(cache_.Span(layer, 0, 300), *stream_));
    }
    return WaitFor(sent);
  }
  std::string Receive() {
    std::vector<std::unique_ptr<Transfer>> received;
    for (int layer = 0; layer < kShape.layers; ++layer) {
      received.push_back(fabric_->Between(0, rank_).Receive(cache_.Span(layer, 300, 600)));
    }
    const std::string met = WaitFor(received);
    return met != "done" || Holds(cache_, 0, 300, 600) ? met : "wrong rows";
  }
  static std::string WaitFor(const std::vector<std::unique_ptr<Transfer>>& transfers) {
    for (const auto& transfer : transfers) {
      if (const Status status = transfer->Wait(After(seconds(10))); !status.ok()) return status.message();
    }
    return "done";
  }

  int rank_;
  std::unique_ptr<Device> device_ = MakeCpuDevice();
  std::unique_ptr<Stream> stream_ = device_->NewStream();
  KvCache cache_{*device_, kShape, kTokens};
  std::shared_ptr<UcxPort> port_ = MakeUcxPort();
  std::unique_ptr<Fabric> fabric_;
};

class UcxProcess : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!BuiltWithUcx()) GTEST_SKIP() << "this build has no UCX";
    if (std::string_view(GetParam()) == "tcp" && !std::filesystem::exists("/sys/class/net")) {
      GTEST_SKIP() << "UCX finds no network without /sys";
    }
    ::setenv("UCX_TLS", GetParam(), 1);
    port_ = MakeUcxPort();
    port_->Register(cache_.memory());
  }
  void TearDown() override {
    for (size_t i = 0; i < children_.size(); ++i) End(i);
    fabric_.reset();
    if (port_ != nullptr) port_->Forget(cache_.memory());
    ::unsetenv("UCX_TLS");
  }

  /// Starts `others` processes; this one has rank 0, and with `two_here` the rank after theirs, too.
  void Join(int others, bool two_here = false) {
    UcxGroup group;
    group.id = std::random_device{}() + 1;
    group.peers.push_back({port_->address(), "here"});
    for (int rank = 1; rank <= others; ++rank) {
      Start(rank);
      group.peers.push_back({Hear(talks_.back().in.get()), "there"});
    }
    if (two_here) group.peers.push_back(group.peers.front());
    for (const Talk& talk : talks_) {
      Tell(talk.out.get(), std::to_string(group.id));
      Tell(talk.out.get(), std::to_string(group.peers.size()));
      for (const UcxPeer& peer : group.peers) Tell(talk.out.get(), peer.address);
    }
    group.own = {{0, nullptr}};
    if (!two_here) {
      fabric_ = MakeUcxFabric(port_, group);
      return;
    }
    const int ranks = others + 2;
    group.own.push_back({ranks - 1, nullptr});
    std::vector<int> process_of(static_cast<size_t>(ranks));
    for (int rank = 1; rank <= others; ++rank) process_of.at(static_cast<size_t>(rank)) = rank;
    fabric_ = MakeFabricTable(process_of, 0, MakeLocalFabric(ranks), [&](auto on_failure) {
      group.on_failure = std::move(on_failure);
      return MakeUcxFabric(port_, group);
    });
  }

  void Ask(int rank, const std::string& what) { Tell(talks_.at(static_cast<size_t>(rank - 1)).out.get(), what); }
  std::string Answer(int rank) { return Hear(talks_.at(static_cast<size_t>(rank - 1)).in.get()); }
  void Stop(int rank) { ASSERT_EQ(::kill(children_.at(static_cast<size_t>(rank - 1)), SIGSTOP), 0); }
  /// Until nothing of it is left, which shared memory looks for.
  void Kill(int rank) {
    pid_t& child = children_.at(static_cast<size_t>(rank - 1));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    child = 0;
  }

  std::vector<std::unique_ptr<Transfer>> ReceiveFrom(int rank, int layers) {
    std::vector<std::unique_ptr<Transfer>> received;
    for (int layer = 0; layer < layers; ++layer) {
      received.push_back(fabric_->Between(rank, 0).Receive(cache_.Span(layer, 0, 300)));
    }
    return received;
  }

  std::unique_ptr<Device> device_ = MakeCpuDevice();
  std::unique_ptr<Stream> stream_ = device_->NewStream();
  KvCache cache_{*device_, kShape, kTokens};
  std::shared_ptr<UcxPort> port_;
  std::unique_ptr<Fabric> fabric_;

 private:
  void Start(int rank) {
    int to[2];
    int from[2];
    ASSERT_EQ(::pipe2(to, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(from, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(to[0], STDIN_FILENO);
      ::dup2(from[1], STDOUT_FILENO);
      const std::string number = std::to_string(rank);
      ::execl("/proc/self/exe", "ucx_process_test", "--serve", number.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(to[0]);
    ::close(from[1]);
    talks_.push_back({Descriptor(from[0]), Descriptor(to[1])});
    children_.push_back(child);
  }

  void End(size_t child) {
    if (children_[child] == 0) return;
    ::kill(children_[child], SIGCONT);
    Tell(talks_[child].out.get(), "end");
    talks_[child].out.Close();
    int status = 0;
    ::waitpid(children_[child], &status, 0);
  }

  std::vector<Talk> talks_;
  std::vector<pid_t> children_;
};

TEST_P(UcxProcess, RowsArriveBothWays) {
  Join(2);
  Fill(cache_, 0, 300, 600);
  for (const int rank : {1, 2}) {
    Ask(rank, "send 4");
    for (const auto& received : ReceiveFrom(rank, kShape.layers)) {
      const Status status = received->Wait(After(seconds(10)));
      ASSERT_TRUE(status.ok()) << status.message();
      const auto moved = received->Moved();
      ASSERT_TRUE(moved.has_value());
      EXPECT_LE(moved->begin, moved->end);
    }
    EXPECT_EQ(Answer(rank), "done");
    EXPECT_TRUE(Holds(cache_, rank, 0, 300));
    Ask(rank, "receive");
    std::vector<std::unique_ptr<Transfer>> sent;
    for (int layer = 0; layer < kShape.layers; ++layer) {
      sent.push_back(fabric_->Between(0, rank).Send(cache_.Span(layer, 300, 600), *stream_));
    }
    for (const auto& transfer : sent) EXPECT_TRUE(transfer->Wait(After(seconds(10))).ok());
    EXPECT_EQ(Answer(rank), "done");
  }
}

// Two more layers are posted here than the other rank sends.
TEST_P(UcxProcess, AKilledProcessIsNamedToAll) {
  Join(2);
  Ask(1, "send 2");
  Ask(2, "receive");  // waits for rows that this process never sends
  const auto received = ReceiveFrom(1, 4);
  ASSERT_TRUE(received[1]->Wait(After(seconds(10))).ok());
  EXPECT_EQ(Answer(1), "done");
  const auto begin = Clock::now();
  Kill(1);
  const Status status = received[2]->Wait(After(seconds(10)));
  EXPECT_EQ(status.message().rfind("lost rank 1 on there: ", 0), 0U) << status.message();
  EXPECT_EQ(Answer(2), status.message());
  EXPECT_LT(Clock::now() - begin, seconds(3));
  EXPECT_EQ(received[3]->Wait(After(seconds(10))).message(), status.message());
}

TEST_P(UcxProcess, AStoppedProcessIsMetAtTheDeadlineAndLeftBehind) {
  Join(1);
  const auto received = ReceiveFrom(1, 4);
  Ask(1, "send 1");
  ASSERT_TRUE(received[0]->Wait(After(seconds(10))).ok());
  EXPECT_EQ(Answer(1), "done");
  Stop(1);
  Fill(cache_, 0, 300, 600);
  const auto sent = fabric_->Between(0, 1).Send(cache_.Span(0, 300, 600), *stream_);
  EXPECT_EQ(received[1]->Wait(After(milliseconds(50))).message(),
            "link 1 -> 0: layer 1 rows [0, 300) did not arrive before the deadline");
  EXPECT_EQ(sent->Wait(After(milliseconds(50))).message(),
            "link 0 -> 1: layer 0 rows [300, 600) did not arrive before the deadline");
  const auto begin = Clock::now();
  fabric_->Fail(Status::Failed("rank 1 does not answer"));
  EXPECT_EQ(sent->Wait(After(seconds(10))).message(), "rank 1 does not answer");
  fabric_.reset();
  EXPECT_LT(Clock::now() - begin, seconds(2));
}

TEST_P(UcxProcess, AReasonReachesTheOthers) {
  Join(2);
  Ask(2, "receive");
  Ask(1, "send 4");
  fabric_->Fail(Status::Failed("rank 0 has\nhad enough"));
  EXPECT_EQ(Answer(1), "rank 0 has had enough");
  EXPECT_EQ(Answer(2), "rank 0 has had enough");
}

// Ranks 0 and 2 are here, rank 1 is not.
TEST_P(UcxProcess, ATableMixesLinksAndTheirFailures) {
  Join(1, /*two_here=*/true);
  Ask(1, "send 4");
  for (const auto& received : ReceiveFrom(1, kShape.layers)) ASSERT_TRUE(received->Wait(After(seconds(10))).ok());
  EXPECT_EQ(Answer(1), "done");
  const KvCache beside(*device_, kShape, kTokens);
  for (int layer = 0; layer < kShape.layers; ++layer) {
    const auto sent = fabric_->Between(0, 2).Send(cache_.Span(layer, 0, 300), *stream_);
    const auto received = fabric_->Between(0, 2).Receive(beside.Span(layer, 0, 300));
    ASSERT_TRUE(received->Wait(After(seconds(10))).ok());
  }
  EXPECT_TRUE(Holds(beside, 1, 0, 300));
  const auto within = fabric_->Between(2, 0).Receive(cache_.Span(0, 0, 4));
  Kill(1);
  const Status status = within->Wait(After(seconds(10)));
  EXPECT_EQ(status.message().rfind("lost rank 1 on there: ", 0), 0U) << status.message();
}

INSTANTIATE_TEST_SUITE_P(Transports, UcxProcess, testing::Values("tcp", "posix,sysv", "all"), [](const auto& tls) {
  const std::string name = tls.param;
  return name.substr(0, name.find(','));
});

}  // namespace
}  // namespace runahead

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  if (argc == 3 && std::string(argv[1]) == "--serve") {
    runahead::Served(argv[2]).Serve();
    return 0;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
