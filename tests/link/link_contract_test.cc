// What every link must do, run against each fabric, plain and under the fault decorator.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <latch>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "link/fault/fault_fabric.h"
#include "link/local/local_fabric.h"
#include "link/throttle.h"
#include "link/ucx/ucx_fabric.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr KvShape kShape{.layers = 3, .kv_heads = 2, .head_dim = 5, .dtype = DType::kF32};
constexpr int64_t kTokens = 11;

std::unique_ptr<Fabric> MakePlainFabric(int ranks) { return MakeLocalFabric(ranks); }

std::unique_ptr<Fabric> MakeSlowLinks(int ranks) {
  const auto n = static_cast<size_t>(ranks);
  return MakeLocalFabric(ranks, Throttle::MakeFor(ranks, {std::vector<double>(n * n, 1e6), {}}));
}

std::unique_ptr<Fabric> MakeSlowRanks(int ranks) {
  return MakeLocalFabric(ranks, Throttle::MakeFor(ranks, {{}, std::vector<double>(static_cast<size_t>(ranks), 1e6)}));
}

std::unique_ptr<Fabric> MakeJitteredFabric(int ranks) {
  Faults faults;
  faults.seed = 7;
  faults.max_delay = milliseconds(2);
  return MakeFaultFabric(MakeLocalFabric(ranks), faults);
}

/// Memory that links must not touch but by its own copies, as a GPU's.
class ApartDevice final : public Device {
 public:
  [[nodiscard]] std::string name() const override { return "apart"; }
  Buffer Allocate(size_t bytes) override { return cpu_->Allocate(bytes); }
  [[nodiscard]] size_t FreeBytes() const override { return cpu_->FreeBytes(); }
  [[nodiscard]] bool is_host() const override { return false; }
  std::unique_ptr<Stream> NewStream() override { return cpu_->NewStream(); }
  void CopyFromHost(void* to, const void* from, size_t bytes, Stream& stream) override {
    ++copies_in;
    cpu_->CopyFromHost(to, from, bytes, stream);
  }
  void Copy(void* to, const void* from, size_t bytes, Stream& stream) override {
    cpu_->Copy(to, from, bytes, stream);
  }
  void CopyToHost(void* to, const void* from, size_t bytes, Stream& stream) override {
    ++copies_out;
    cpu_->CopyToHost(to, from, bytes, stream);
  }

  std::atomic<int> copies_in = 0;
  std::atomic<int> copies_out = 0;

 private:
  std::unique_ptr<Device> cpu_ = MakeCpuDevice();
};

/// Ranks that are alone in their processes, all of which are this one: each has its own port and fabric.
class UcxProcesses final : public Fabric {
 public:
  explicit UcxProcesses(int ranks, Device* device = nullptr) {
    UcxGroup group;
    group.id = std::random_device{}();
    std::vector<std::shared_ptr<UcxPort>> ports;
    for (int rank = 0; rank < ranks; ++rank) {
      ports.push_back(MakeUcxPort());
      group.peers.push_back({ports.back()->address(), ""});
    }
    for (int rank = 0; rank < ranks; ++rank) {
      group.own = {{rank, device}};
      fabrics_.push_back(MakeUcxFabric(ports.at(static_cast<size_t>(rank)), group));
      for (int to = 0; to < ranks; ++to) {
        if (to != rank) links_[{rank, to}] = nullptr;
      }
    }
    for (auto& [ends, link] : links_) link = std::make_unique<BothEnds>(*this, ends.first, ends.second);
  }

  [[nodiscard]] int ranks() const override { return static_cast<int>(fabrics_.size()); }
  Link& Between(int from, int to) override { return *links_.at({from, to}); }
  void Fail(const Status& reason) override { fabrics_.front()->Fail(reason); }  // the others are told

 private:
  class BothEnds final : public Link {
   public:
    BothEnds(UcxProcesses& all, int from, int to)
        : sender_(all.fabrics_.at(static_cast<size_t>(from))->Between(from, to)),
          receiver_(all.fabrics_.at(static_cast<size_t>(to))->Between(from, to)) {}
    std::unique_ptr<Transfer> Send(const KvSpan& span, Stream& after) override { return sender_.Send(span, after); }
    std::unique_ptr<Transfer> Receive(const KvSpan& span) override { return receiver_.Receive(span); }

   private:
    Link& sender_;
    Link& receiver_;
  };

  std::vector<std::unique_ptr<Fabric>> fabrics_;                // [ranks]
  std::map<std::pair<int, int>, std::unique_ptr<Link>> links_;  // by from and to
};

std::unique_ptr<Fabric> MakeUcxProcesses(int ranks) { return std::make_unique<UcxProcesses>(ranks); }

std::unique_ptr<Fabric> MakeStagedUcxProcesses(int ranks) {
  static ApartDevice device;
  return std::make_unique<UcxProcesses>(ranks, &device);
}

struct FabricKind {
  const char* name;
  std::unique_ptr<Fabric> (*make)(int ranks);

  friend void PrintTo(const FabricKind& kind, std::ostream* out) { *out << kind.name; }
};

class LinkContract : public testing::TestWithParam<FabricKind> {
 protected:
  std::unique_ptr<Device> device_ = MakeCpuDevice();
  std::unique_ptr<Stream> stream_ = device_->NewStream();
  std::unique_ptr<Fabric> fabric_ = GetParam().make(3);
};

void FillRandomly(const KvCache& cache, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (int layer = 0; layer < kShape.layers; ++layer) {
    const KvSpan span = cache.Span(layer, 0, cache.capacity());
    for (const TensorView& view : {span.k, span.v}) {
      for (int64_t i = 0; i < view.shape().elements(); ++i) view.As<float>()[i] = normal(random);
    }
  }
}

std::vector<float> Values(const TensorView& view) {
  return {view.As<float>(), view.As<float>() + view.shape().elements()};
}

void ExpectSameRows(const KvCache& a, const KvCache& b, int64_t begin, int64_t end) {
  for (int layer = 0; layer < kShape.layers; ++layer) {
    EXPECT_EQ(Values(a.Span(layer, begin, end).k), Values(b.Span(layer, begin, end).k)) << "layer " << layer;
    EXPECT_EQ(Values(a.Span(layer, begin, end).v), Values(b.Span(layer, begin, end).v)) << "layer " << layer;
  }
}

TEST_P(LinkContract, MovesRowsWhicheverSidePostsFirst) {
  const KvCache source(*device_, kShape, kTokens);
  const KvCache target(*device_, kShape, kTokens + 4);  // capacities need not be equal
  FillRandomly(source, 1);
  FillRandomly(target, 2);
  const std::vector<float> untouched = Values(target.Span(1, 9, kTokens + 4).v);
  Link& link = fabric_->Between(0, 2);
  for (int layer = 0; layer < kShape.layers; ++layer) {
    std::unique_ptr<Transfer> sent;
    std::unique_ptr<Transfer> received;
    if (layer % 2 == 0) {
      received = link.Receive(target.Span(layer, 2, 9));
      sent = link.Send(source.Span(layer, 2, 9), *stream_);
    } else {
      sent = link.Send(source.Span(layer, 2, 9), *stream_);
      received = link.Receive(target.Span(layer, 2, 9));
    }
    ASSERT_TRUE(received->OrderBefore(*stream_, After(seconds(10))).ok());
    ASSERT_TRUE(sent->Wait(After(seconds(10))).ok());
  }
  ExpectSameRows(source, target, 2, 9);
  EXPECT_EQ(Values(target.Span(1, 9, kTokens + 4).v), untouched);
}

TEST_P(LinkContract, KeepsTheOrderOfManySpansBetweenThreads) {
  const KvCache source(*device_, kShape, kTokens);
  const KvCache target(*device_, kShape, kTokens);
  FillRandomly(source, 3);
  Link& link = fabric_->Between(1, 0);
  std::thread sender([&] {
    for (int layer = 0; layer < kShape.layers; ++layer) {
      for (int64_t row = 0; row < kTokens; ++row) {
        const auto sent = link.Send(source.Span(layer, row, row + 1), *stream_);
        EXPECT_TRUE(sent->Wait(After(seconds(10))).ok());
      }
    }
  });
  for (int layer = 0; layer < kShape.layers; ++layer) {
    for (int64_t row = 0; row < kTokens; ++row) {
      EXPECT_TRUE(link.Receive(target.Span(layer, row, row + 1))->Wait(After(seconds(10))).ok());
    }
  }
  sender.join();
  ExpectSameRows(source, target, 0, kTokens);
}

// Links are made when they are first asked for, by whichever rank comes first.
TEST_P(LinkContract, ManyThreadsGetOneLink) {
  constexpr int kThreads = 4;
  std::latch together(kThreads);
  std::vector<std::future<std::vector<Link*>>> asked;
  for (int thread = 0; thread < kThreads; ++thread) {
    asked.push_back(std::async(std::launch::async, [&] {
      together.arrive_and_wait();
      std::vector<Link*> links;
      for (int from = 0; from < fabric_->ranks(); ++from) {
        for (int to = 0; to < fabric_->ranks(); ++to) {
          if (from != to) links.push_back(&fabric_->Between(from, to));
        }
      }
      return links;
    }));
  }
  const std::vector<Link*> first = asked.front().get();
  EXPECT_EQ(std::set<Link*>(first.begin(), first.end()).size(), first.size());
  for (size_t thread = 1; thread < asked.size(); ++thread) EXPECT_EQ(asked[thread].get(), first);
}

TEST_P(LinkContract, AWaitEndsAtItsDeadlineAndNamesTheLink) {
  const KvCache target(*device_, kShape, kTokens);
  const auto received = fabric_->Between(0, 1).Receive(target.Span(2, 0, 4));
  const Status status = received->Wait(After(milliseconds(5)));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.message(), "link 0 -> 1: layer 2 rows [0, 4) did not arrive before the deadline");
}

TEST_P(LinkContract, AFailureWakesEveryWaiterAndKeepsTheFirstReason) {
  const KvCache target(*device_, kShape, kTokens);
  const auto first = fabric_->Between(0, 1).Receive(target.Span(0, 0, 4));
  const auto second = fabric_->Between(2, 1).Receive(target.Span(0, 4, 8));
  auto waiter = std::async(std::launch::async, [&] { return first->Wait(After(seconds(30))).message(); });
  fabric_->Fail(Status::Failed("rank 0: out of luck"));
  fabric_->Fail(Status::Failed("rank 2: too late to matter"));
  EXPECT_EQ(waiter.get(), "rank 0: out of luck");
  EXPECT_EQ(second->Wait(After(seconds(30))).message(), "rank 0: out of luck");
  const auto later = fabric_->Between(0, 1).Send(target.Span(1, 0, 4), *stream_);
  EXPECT_EQ(later->Wait(After(seconds(30))).message(), "rank 0: out of luck");
}

TEST_P(LinkContract, EndsThatPostDifferentSpansBothFail) {
  const KvCache source(*device_, kShape, kTokens);
  const KvCache target(*device_, kShape, kTokens);
  Link& link = fabric_->Between(0, 1);
  const auto received = link.Receive(target.Span(0, 0, 4));
  const auto sent = link.Send(source.Span(0, 0, 5), *stream_);
  EXPECT_FALSE(received->Wait(After(seconds(10))).ok());
  EXPECT_EQ(sent->Wait(After(seconds(10))).message(),
            "link 0 -> 1: one end posted layer 0 rows [0, 5), the other layer 0 rows [0, 4)");
}

std::vector<FabricKind> Kinds() {
  std::vector<FabricKind> kinds{{"local", &MakePlainFabric},
                                {"slow_links", &MakeSlowLinks},
                                {"slow_ranks", &MakeSlowRanks},
                                {"jittered", &MakeJitteredFabric}};
  if (BuiltWithUcx()) {
    kinds.push_back({"ucx", &MakeUcxProcesses});
    kinds.push_back({"ucx_staged", &MakeStagedUcxProcesses});
  }
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(Fabrics, LinkContract, testing::ValuesIn(Kinds()),
                         [](const auto& kind) { return kind.param.name; });

TEST(FaultFabric, LosesWhatARankSendsFromALayerOn) {
  const auto device = MakeCpuDevice();
  const auto stream = device->NewStream();
  Faults faults;
  faults.lose_from = 0;
  faults.lose_layer = 1;
  const auto fabric = MakeFaultFabric(MakeLocalFabric(2), faults);
  const KvCache source(*device, kShape, kTokens);
  const KvCache target(*device, kShape, kTokens);
  FillRandomly(source, 5);
  for (int layer = 0; layer < 2; ++layer) {
    const auto received = fabric->Between(0, 1).Receive(target.Span(layer, 0, 4));
    const auto sent = fabric->Between(0, 1).Send(source.Span(layer, 0, 4), *stream);
    EXPECT_TRUE(sent->Wait(After(seconds(10))).ok());
    EXPECT_EQ(received->Wait(After(milliseconds(5))).ok(), layer == 0);
  }
}

TEST(UcxFabric, CopiesOnceEachWayWhereADeviceHasItsOwnMemory) {
  if (!BuiltWithUcx()) GTEST_SKIP() << "this build has no UCX";
  ApartDevice device;
  const auto stream = device.NewStream();
  UcxProcesses fabric(2, &device);
  const KvCache source(device, kShape, kTokens);
  const KvCache target(device, kShape, kTokens);
  FillRandomly(source, 5);
  for (int layer = 0; layer < kShape.layers; ++layer) {
    const auto received = fabric.Between(0, 1).Receive(target.Span(layer, 0, kTokens));
    const auto sent = fabric.Between(0, 1).Send(source.Span(layer, 0, kTokens), *stream);
    ASSERT_TRUE(received->Wait(After(seconds(10))).ok());
    ASSERT_TRUE(received->OrderBefore(*stream, After(seconds(10))).ok());
    ASSERT_TRUE(sent->Wait(After(seconds(10))).ok());
  }
  ExpectSameRows(source, target, 0, kTokens);
  EXPECT_EQ(device.copies_out, 2 * kShape.layers);
  EXPECT_EQ(device.copies_in, 2 * kShape.layers);
}

TEST(UcxFabric, AnAddressThatIsNoneIsRefused) {
  if (!BuiltWithUcx()) GTEST_SKIP() << "this build has no UCX";
  const auto port = MakeUcxPort();
  std::string cut = port->address();
  cut.pop_back();
  std::string changed = port->address();
  changed[20] ^= 1;
  for (const std::string& address : {std::string(), std::string("RAUX"), cut, changed}) {
    try {
      (void)MakeUcxFabric(
          port, {.id = 1, .peers = {{port->address(), ""}, {address, ""}}, .own = {{0, nullptr}}, .on_failure = {}});
      FAIL() << address.size();
    } catch (const LinkError& error) {
      EXPECT_EQ(error.what(), fmt::format("an address of {} bytes is none of UCX's", address.size()));
    }
  }
}

TEST(UcxFabric, AProcessThatIsGoneFailsWhatIsAwaitedOfIt) {
  if (!BuiltWithUcx()) GTEST_SKIP() << "this build has no UCX";
  const std::string gone = MakeUcxPort({.one_host = true})->address();
  const auto port = MakeUcxPort({.one_host = true});
  const auto fabric = MakeUcxFabric(
      port, {.id = 1, .peers = {{port->address(), ""}, {gone, ""}}, .own = {{0, nullptr}}, .on_failure = {}});
  const auto device = MakeCpuDevice();
  const KvCache target(*device, kShape, kTokens);
  const Status status = fabric->Between(1, 0).Receive(target.Span(0, 0, kTokens))->Wait(After(seconds(10)));
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("rank 1"), std::string::npos) << status.message();
}

// Bytes over the rate is the least that transfers take, one after the other over a link or a rank's card.
TEST(SlowFabric, TakesAtLeastBytesOverRate) {
  constexpr double kRate = 1e6;
  const auto device = MakeCpuDevice();
  const auto stream = device->NewStream();
  const KvCache source(*device, kShape, kTokens);
  const KvCache target(*device, kShape, kTokens);
  const KvCache other(*device, kShape, kTokens);
  const double one_s = static_cast<double>(source.Span(0, 0, kTokens).bytes()) / kRate;
  for (const bool by_rank : {false, true}) {
    const auto fabric = by_rank ? MakeSlowRanks(3) : MakeSlowLinks(3);
    const auto begin = Clock::now();
    std::vector<std::unique_ptr<Transfer>> transfers;
    for (int layer = 0; layer < kShape.layers; ++layer) {
      for (const auto& [to, cache] : {std::pair(1, &target), std::pair(2, &other)}) {
        transfers.push_back(fabric->Between(0, to).Receive(cache->Span(layer, 0, kTokens)));
        transfers.push_back(fabric->Between(0, to).Send(source.Span(layer, 0, kTokens), *stream));
      }
    }
    for (const auto& transfer : transfers) {
      ASSERT_TRUE(transfer->Wait(After(seconds(10))).ok());
      const std::optional<MovedAt> moved = transfer->Moved();
      ASSERT_TRUE(moved.has_value());
      EXPECT_GE(std::chrono::duration<double>(moved->end - moved->begin).count(), one_s);
    }
    const double passed = std::chrono::duration<double>(Clock::now() - begin).count();
    EXPECT_GE(passed, kShape.layers * one_s * (by_rank ? 2 : 1)) << by_rank;
    ExpectSameRows(source, other, 0, kTokens);
  }
}

TEST(SlowFabric, AWaitEndsAtItsDeadline) {
  const auto device = MakeCpuDevice();
  const auto stream = device->NewStream();
  const KvCache cache(*device, kShape, kTokens);
  const auto fabric = MakeLocalFabric(2, Throttle::MakeFor(2, {std::vector<double>(4, 1e3), {}}));
  const auto received = fabric->Between(0, 1).Receive(cache.Span(1, 0, kTokens));
  const auto sent = fabric->Between(0, 1).Send(cache.Span(1, 0, kTokens), *stream);
  for (const Status& status :
       {received->OrderBefore(*stream, After(milliseconds(1))), sent->Wait(After(milliseconds(1)))}) {
    EXPECT_EQ(status.message(), "link 0 -> 1: layer 1 rows [0, 11): the copy did not end before the deadline");
  }
}

// Seconds since the start, of transfers of a second each.
TEST(Throttle, BooksOneTransferAtATime) {
  const Clock::time_point start{};
  const auto book = [&](Throttle& throttle, int from, int to, double ready) {
    const auto at = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(ready));
    const MovedAt moved = throttle.Book(from, to, 100, at);
    return std::pair(std::chrono::duration<double>(moved.begin - start).count(),
                     std::chrono::duration<double>(moved.end - start).count());
  };
  Throttle links(3, {std::vector<double>(9, 100.0), {}});
  EXPECT_EQ(book(links, 0, 1, 5), std::pair(5.0, 6.0));
  EXPECT_EQ(book(links, 0, 1, 5.5), std::pair(6.0, 7.0));
  EXPECT_EQ(book(links, 0, 2, 5.5), std::pair(5.5, 6.5));
  EXPECT_EQ(book(links, 1, 0, 5.5), std::pair(5.5, 6.5));

  Throttle ranks(3, {{}, std::vector<double>(3, 100.0)});
  EXPECT_EQ(book(ranks, 0, 2, 0), std::pair(0.0, 1.0));
  EXPECT_EQ(book(ranks, 0, 1, 0), std::pair(1.0, 2.0));    // leaves after the first
  EXPECT_EQ(book(ranks, 1, 2, 0.5), std::pair(0.5, 2.0));  // enters after the first
  EXPECT_EQ(book(ranks, 2, 0, 0), std::pair(0.0, 1.0));    // each direction for itself

  Throttle some(2, {{0, 0, 100.0, 0}, {}});
  EXPECT_FALSE(some.Limits(0, 1));
  EXPECT_TRUE(some.Limits(1, 0));
  EXPECT_EQ(book(some, 0, 1, 3), std::pair(3.0, 3.0));
}

}  // namespace
}  // namespace runahead
