// Rows that travel in fewer bits: what of a prompt phase changes by how much, and what does not.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "codec/row_codec.h"
#include "engine/engine_state.h"
#include "engine/session_state.h"
#include "link/fault/fault_fabric.h"
#include "link/local/local_fabric.h"
#include "runahead/error.h"
#include "runahead/request.h"
#include "tests/engine/outcome.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

constexpr WireFormat kLossy[] = {WireFormat::kInt8, WireFormat::kFp8, WireFormat::kInt4};
constexpr int64_t kTokens = 203;

EngineOptions OptionsOf(const std::string& wire, const std::string& devices = "cpu:4") {
  EngineOptions options;
  options.devices = devices;
  options.threads_per_rank = 1;
  options.dtype = "bf16";
  options.wire = wire;
  options.timeout_s = 60;
  return options;
}

/// Engines of one model by their wire, loaded once.
std::shared_ptr<EngineState> EngineOf(const std::string& wire, const std::string& preset = "tiny-llama") {
  static std::map<std::pair<std::string, std::string>, std::shared_ptr<EngineState>> engines;
  auto& engine = engines[{wire, preset}];
  if (engine == nullptr) engine = LoadEngineState(TinyModelFolder(preset), OptionsOf(wire));
  return engine;
}

struct Phase {
  PrefillReport report;
  std::vector<float> logits;
  std::vector<float> first_keys;  // of layer 0
  std::vector<float> last_keys;   // of the last layer
};

Phase RunWith(const std::shared_ptr<EngineState>& engine, const PrefillOptions& options, int64_t tokens = kTokens) {
  SessionState session(engine, tokens + 1);
  Phase run;
  run.report = session.Prefill(RandomPrompt(tokens, engine->decoder().spec().vocab, 3), options);
  run.logits.assign(session.logits().begin(), session.logits().end());
  run.first_keys = session.CacheRows(0, false);
  run.last_keys = session.CacheRows(engine->decoder().spec().layers - 1, false);
  return run;
}

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  return largest;
}

PrefillOptions Over(int ranks, Topology topology) {
  return {Strategy::kRunahead, topology, {PartitionKind::kEven, {}}, ranks, false};
}

TEST(Wire, LogitsStayCloseInEveryWayToShare) {
  for (const char* preset : {"tiny-llama", "tiny-mistral", "tiny-deepseek-v3"}) {
    const Phase exact = RunWith(EngineOf("exact", preset), {Strategy::kSingle, Topology::kChain, {}, 0, false});
    EXPECT_EQ(exact.report.wire_bound, 0);
    EXPECT_TRUE(exact.report.wire.empty());
    for (const WireFormat format : kLossy) {
      const auto engine = EngineOf(std::string(Name(format)), preset);
      for (const int ranks : {2, 4}) {
        for (const auto& [name, options] : AllOptions(ranks, 5)) {
          SCOPED_TRACE(std::string(preset) + " " + name + " " + std::string(Name(format)));
          const Phase run = RunWith(engine, options);
          const double share = format == WireFormat::kInt8 ? 0.05 : format == WireFormat::kFp8 ? 0.2 : 0.4;
          EXPECT_LE(LargestDifference(run.logits, exact.logits), share * LargestMagnitude(exact.logits));
          EXPECT_EQ(run.report.wire, std::vector<WireFormat>(static_cast<size_t>(ranks * ranks), format));
          EXPECT_GT(run.report.wire_bound, 0);
          EXPECT_TRUE(std::isfinite(run.report.wire_bound));
        }
      }
    }
  }
}

// Keys of the first layer depend on nothing that travelled: what the last rank has of them was quantised once,
// however many ranks passed it on, and its own rows are exact.
TEST(Wire, ErrorsDoNotGrowFromRankToRank) {
  const Phase exact = RunWith(EngineOf("exact"), Over(4, Topology::kChain));
  for (const WireFormat format : kLossy) {
    const auto engine = EngineOf(std::string(Name(format)));
    const Phase chain = RunWith(engine, Over(4, Topology::kChain));
    const Phase direct = RunWith(engine, Over(4, Topology::kDirect));
    EXPECT_EQ(chain.first_keys, direct.first_keys);
    EXPECT_NE(chain.first_keys, exact.first_keys);
    EXPECT_LE(LargestDifference(chain.first_keys, exact.first_keys), chain.report.wire_bound);
    const int64_t own = chain.report.cuts[3];
    const int64_t row = std::ssize(chain.first_keys) / kTokens;
    const auto same = [&](int64_t begin, int64_t end) {
      return std::equal(chain.first_keys.begin() + begin * row, chain.first_keys.begin() + end * row,
                        exact.first_keys.begin() + begin * row);
    };
    EXPECT_TRUE(same(own, kTokens));
    EXPECT_TRUE(same(0, RowCodec::kExactRows));
    EXPECT_FALSE(same(RowCodec::kExactRows, own));
  }
}

TEST(Wire, TheSamePromptGivesTheSameBits) {
  const auto engine = EngineOf("int4");
  const Phase first = RunWith(engine, Over(3, Topology::kChain));
  const Phase second = RunWith(engine, Over(3, Topology::kChain));
  EXPECT_EQ(first.logits, second.logits);
  EXPECT_EQ(first.last_keys, second.last_keys);
}

TEST(Wire, BytesAreThoseOfTheFormat) {
  const KvShape shape = EngineOf("exact")->decoder().spec().kv_shape(DType::kBF16);
  const auto expected = [&](WireFormat format) {  // rows [0, 102) in each layer, from one rank to the other
    const RowCodec codec(format, RowKind::kValues, shape.kv_heads, shape.head_dim, DType::kBF16);
    return 2 * static_cast<size_t>(shape.layers) * codec.Bytes(0, 102);
  };
  for (const WireFormat format : {WireFormat::kExact, WireFormat::kInt8, WireFormat::kFp8, WireFormat::kInt4}) {
    const Phase run = RunWith(EngineOf(std::string(Name(format))), Over(2, Topology::kDirect));
    ASSERT_EQ(run.report.cuts, (std::vector<int64_t>{0, 102, kTokens}));
    EXPECT_EQ(run.report.bytes_sent, expected(format)) << Name(format);
  }
}

TEST(Wire, LostRowsEndThePromptAndTheNextOneWorks) {
  EngineOptions options = OptionsOf("int8");
  options.timeout_s = 3;
  const auto engine = LoadEngineState(TinyModelFolder(), options);
  const Phase before = RunWith(engine, Over(4, Topology::kChain));
  for (const Topology topology : {Topology::kChain, Topology::kDirect}) {
    Faults faults;
    faults.lose_from = 1;
    faults.lose_layer = 1;
    engine->Hold().SetFabric(MakeFaultFabric(MakeLocalFabric(4), faults));
    EXPECT_THROW(RunWith(engine, Over(4, topology)), LinkError);
  }
  EXPECT_EQ(RunWith(engine, Over(4, Topology::kChain)).logits, before.logits);
}

TEST(Wire, RequestsShareAndGoOnBehindTheirPrefix) {
  const Engine exact = Engine::Load(TinyModelFolder(), OptionsOf("exact", "cpu:3"));
  const Engine engine = Engine::Load(TinyModelFolder(), OptionsOf("int8", "cpu:3"));
  const std::vector<int32_t> all = RandomPrompt(900, 512, 9);
  const auto end_of = [&](const Engine& of, int64_t tokens) {
    Request request;
    request.prompt.assign(all.begin(), all.begin() + tokens);
    request.prefill.ranks = 3;
    request.generation.max_new_tokens = 1;
    RequestHandle handle = of.Submit(std::move(request));
    while (true) {
      const std::optional<RequestEvent> event = handle.Next(std::chrono::minutes(1));
      if (!event) throw std::runtime_error("a request gave nothing for a minute");
      if (event->kind == RequestEvent::Kind::kEnd) return event->stats;
    }
  };
  const RequestStats first = end_of(engine, 600);
  EXPECT_EQ(first.wire, std::vector<WireFormat>(9, WireFormat::kInt8));
  EXPECT_GT(first.wire_bound, 0);
  const RequestStats alone = end_of(exact, 600);
  EXPECT_LT(first.bytes_sent, 0.7 * static_cast<double>(alone.bytes_sent));
  EXPECT_EQ(alone.wire_bound, 0);
  const RequestStats second = end_of(engine, 900);  // whose first rows some ranks get from another
  EXPECT_EQ(second.cached_tokens, 600);
  EXPECT_GT(second.bytes_sent, 0);
}

TEST(Wire, UnknownFormatsAreNamed) {
  try {
    (void)LoadEngineState(TinyModelFolder(), OptionsOf("int7"));
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "wire: unknown 'int7' (known: auto, exact, int8, fp8, int4)");
  }
}

// At 1 MB/s the rows are what all wait for; without a limit encoding them would take longer than moving them.
TEST(Wire, AutoEncodesWhereLinksAreSlow) {
  EngineOptions options = OptionsOf("auto", "cpu:2");
  const PrefillOptions over{Strategy::kRunahead, Topology::kDirect, {}, 2, false};
  EXPECT_TRUE(RunWith(LoadEngineState(TinyModelFolder(), options), over).report.wire.empty());
  options.link_bandwidth = "1MB/s";
  const PrefillReport report = RunWith(LoadEngineState(TinyModelFolder(), options), over).report;
  ASSERT_EQ(report.wire.size(), 4U);
  EXPECT_EQ(report.wire[1], WireFormat::kInt8);
  EXPECT_NE(report.plan.find("rows travel as int8"), std::string::npos) << report.plan;
}

}  // namespace
}  // namespace runahead
