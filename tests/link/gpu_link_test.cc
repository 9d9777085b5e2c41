// Links between GPUs: straight, through host memory, and slowed down. With one GPU the ranks share it; without one
// these are skipped.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "link/local/local_fabric.h"
#include "tensor/cuda_device.h"

namespace runahead {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kRanks = 3;
constexpr KvShape kShape{.layers = 2, .kv_heads = 8, .head_dim = 128, .dtype = DType::kF16};
constexpr int64_t kTokens = 9001;  // 18 MB of keys: more than all the slots of a way through host memory
constexpr double kRate = 2e9;      // rate of limited links, bytes per second: 18 ms for a layer

struct Kind {
  const char* name;
  bool through_host;
  LinkRates rates;

  friend void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
};

std::vector<int> Gpus() {
  std::vector<int> gpus;
  for (int rank = 0; rank < kRanks; ++rank) gpus.push_back(rank % CudaDeviceCount());
  return gpus;
}

class GpuLink : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "there is no GPU";
    for (const int gpu : Gpus()) {
      devices_.push_back(MakeCudaDevice(gpu));
      streams_.push_back(devices_.back()->NewStream());
      caches_.emplace_back(*devices_.back(), kShape, kTokens);
    }
    fabric_ = MakeCudaFabric(Gpus(), GetParam().through_host, Throttle::MakeFor(kRanks, GetParam().rates));
  }

  /// Random bytes in all rows of `layer` of a rank's cache; returns keys, then values.
  std::vector<std::byte> Fill(int rank, int layer, unsigned seed) {
    const auto i = static_cast<size_t>(rank);
    const KvSpan span = caches_[i].Span(layer, 0, kTokens);
    std::mt19937 random(seed);
    std::vector<std::byte> bytes(span.bytes());
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    const size_t half = span.k.bytes();
    devices_[i]->CopyFromHost(span.k.data(), bytes.data(), half, *streams_[i]);
    devices_[i]->CopyFromHost(span.v.data(), bytes.data() + half, half, *streams_[i]);
    return bytes;
  }

  /// Through the rank's stream, so behind what was ordered before it.
  std::vector<std::byte> Read(int rank, int layer, int64_t begin, int64_t end) {
    const auto i = static_cast<size_t>(rank);
    const KvSpan span = caches_[i].Span(layer, begin, end);
    std::vector<std::byte> bytes(span.bytes());
    devices_[i]->CopyToHost(bytes.data(), span.k.data(), span.k.bytes(), *streams_[i]);
    devices_[i]->CopyToHost(bytes.data() + span.k.bytes(), span.v.data(), span.v.bytes(), *streams_[i]);
    return bytes;
  }

  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<KvCache> caches_;
  std::unique_ptr<Fabric> fabric_;
};

TEST_P(GpuLink, MovesRowsWithoutTheHostsHelpWhicheverSidePostsFirst) {
  for (const bool receive_first : {true, false}) {
    const int layer = receive_first ? 0 : 1;
    const std::vector<std::byte> sent_bytes = Fill(0, layer, 1 + layer);
    (void)Fill(1, layer, 7);
    Link& link = fabric_->Between(0, 1);
    std::unique_ptr<Transfer> received;
    if (receive_first) received = link.Receive(caches_[1].Span(layer, 0, kTokens));
    const auto sent = link.Send(caches_[0].Span(layer, 0, kTokens), *streams_[0]);
    if (!receive_first) received = link.Receive(caches_[1].Span(layer, 0, kTokens));
    ASSERT_TRUE(received->OrderBefore(*streams_[1], After(seconds(10))).ok());
    EXPECT_TRUE(Read(1, layer, 0, kTokens) == sent_bytes);
    ASSERT_TRUE(sent->Wait(After(seconds(10))).ok());
    EXPECT_FALSE(sent->Moved().has_value());  // nobody asked
  }
}

// 0 -> 1 -> 2, enqueued before anything can have moved: each hop waits for the one before.
TEST_P(GpuLink, AChainOfHopsIsEnqueuedAhead) {
  const std::vector<std::byte> bytes = Fill(0, 0, 3);
  (void)Fill(1, 0, 4);
  (void)Fill(2, 0, 5);
  const auto first = fabric_->Between(0, 1).Receive(caches_[1].Span(0, 0, kTokens));
  const auto second = fabric_->Between(1, 2).Receive(caches_[2].Span(0, 0, kTokens));
  const auto sent = fabric_->Between(0, 1).Send(caches_[0].Span(0, 0, kTokens), *streams_[0]);
  ASSERT_TRUE(first->OrderBefore(*streams_[1], After(seconds(10))).ok());
  const auto forwarded = fabric_->Between(1, 2).Send(caches_[1].Span(0, 0, kTokens), *streams_[1]);
  ASSERT_TRUE(second->OrderBefore(*streams_[2], After(seconds(10))).ok());
  EXPECT_TRUE(Read(2, 0, 0, kTokens) == bytes);
  EXPECT_TRUE(sent->Wait(After(seconds(10))).ok());
  EXPECT_TRUE(forwarded->Wait(After(seconds(10))).ok());
}

TEST_P(GpuLink, TellsWhenRowsMovedAndKeepsToItsRate) {
  (void)Fill(0, 0, 1);
  fabric_->KeepTimes(true);
  const auto begin = Clock::now();
  std::vector<std::unique_ptr<Transfer>> transfers;
  for (int layer = 0; layer < kShape.layers; ++layer) {
    for (const int to : {1, 2}) {
      transfers.push_back(fabric_->Between(0, to).Receive(caches_[static_cast<size_t>(to)].Span(layer, 0, kTokens)));
      transfers.push_back(fabric_->Between(0, to).Send(caches_[0].Span(layer, 0, kTokens), *streams_[0]));
    }
  }
  constexpr milliseconds kClocksDiffer(1);
  for (const auto& transfer : transfers) {
    ASSERT_TRUE(transfer->Wait(After(seconds(10))).ok());
    const std::optional<MovedAt> moved = transfer->Moved();
    ASSERT_TRUE(moved.has_value());
    EXPECT_LT(begin - kClocksDiffer, moved->begin);
    EXPECT_LT(moved->begin, moved->end);
    EXPECT_LT(moved->end, Clock::now() + kClocksDiffer);
  }
  const double passed = std::chrono::duration<double>(Clock::now() - begin).count();
  const double layer_s = static_cast<double>(caches_[0].Span(0, 0, kTokens).bytes()) / kRate;
  if (!GetParam().rates.of_link.empty()) {
    EXPECT_GE(passed, kShape.layers * layer_s);
  }
  if (!GetParam().rates.of_rank.empty()) {
    EXPECT_GE(passed, 2 * kShape.layers * layer_s);
  }
}

TEST_P(GpuLink, AWaitEndsAtItsDeadlineAndTheFabricCanGo) {
  const auto received = fabric_->Between(0, 1).Receive(caches_[1].Span(1, 0, kTokens));
  EXPECT_EQ(received->Wait(After(milliseconds(5))).message(),
            "link 0 -> 1: layer 1 rows [0, 9001) did not arrive before the deadline");
  std::vector<std::unique_ptr<Transfer>> many;
  for (int i = 0; i < 20; ++i) {  // 0.7 s of copies on a limited link
    many.push_back(fabric_->Between(1, 2).Receive(caches_[2].Span(0, 0, kTokens)));
    many.push_back(fabric_->Between(1, 2).Send(caches_[1].Span(0, 0, kTokens), *streams_[1]));
  }
  if (!GetParam().rates.of_link.empty()) {
    EXPECT_FALSE(many.back()->Wait(After(milliseconds(5))).ok());
  }
  fabric_.reset();  // opens all gates, and waits for the copies
  EXPECT_TRUE(streams_[1]->Drain(After(seconds(10))).ok());
}

INSTANTIATE_TEST_SUITE_P(
    Fabrics, GpuLink,
    testing::Values(Kind{"straight", false, {}}, Kind{"through_host", true, {}},
                    Kind{"slow_links", false, {std::vector<double>(kRanks * kRanks, kRate), {}}},
                    Kind{"slow_ranks", false, {{}, std::vector<double>(kRanks, kRate)}},
                    Kind{"slow_links_through_host", true, {std::vector<double>(kRanks * kRanks, kRate), {}}}),
    [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace runahead
