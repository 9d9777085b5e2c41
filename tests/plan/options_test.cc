#include "runahead/options.h"

#include <gtest/gtest.h>

#include "plan/scheme.h"
#include "runahead/error.h"

namespace runahead {
namespace {

TEST(Options, ParseTheirOwnNames) {
  for (const Strategy strategy :
       {Strategy::kSingle, Strategy::kRunahead, Strategy::kTspDense, Strategy::kTspCausal}) {
    EXPECT_EQ(ParseStrategy(Name(strategy)), strategy);
  }
  for (const Topology topology : {Topology::kChain, Topology::kDirect})
    EXPECT_EQ(ParseTopology(Name(topology)), topology);
  for (const Gather gather : {Gather::kCopies, Gather::kNccl}) EXPECT_EQ(ParseGather(Name(gather)), gather);
  EXPECT_EQ(StrategyNames(), "single, runahead, tsp, tsp-causal");
  EXPECT_EQ(PartitionNames(), "even, searched, predicted, auto");
  EXPECT_EQ(Name(PartitionKind::kManual), "manual");
  EXPECT_THROW(ParseStrategy("ring"), ConfigError);
  EXPECT_THROW(ParseTopology(""), ConfigError);
}

TEST(Options, ParsePartitions) {
  EXPECT_EQ(PartitionRequest::Parse("even").kind, PartitionKind::kEven);
  EXPECT_EQ(PartitionRequest::Parse("auto").kind, PartitionKind::kAuto);
  EXPECT_EQ(PartitionRequest::Parse("5,4.5,3e0").fractions, (std::vector<double>{5, 4.5, 3}));
  for (const char* wrong :
       {"", ",", "1,", "1,,2", "1,x", "0,1", "-1,2", "nan,1", "inf", "1 2", "1e999", "uneven", "manual"}) {
    EXPECT_THROW(PartitionRequest::Parse(wrong), ConfigError) << wrong;
  }
}

// A scheme has the words of its strategy and topology, and comes back from them.
TEST(Scheme, IsNamedByItsParts) {
  EXPECT_EQ(Name(Scheme::kSingle), "single");
  EXPECT_EQ(Name(Scheme::kRunaheadChain), "runahead chain");
  EXPECT_EQ(Name(Scheme::kRunaheadDirect), "runahead direct");
  EXPECT_EQ(Name(Scheme::kTspDense), "tsp");
  EXPECT_EQ(Name(Scheme::kTspCausal), "tsp-causal");
  EXPECT_EQ(Name(Scheme::kTensorParallel), "tp");
  for (const Scheme scheme : kSchemes) EXPECT_EQ(ParseScheme(Name(scheme)), scheme);
  EXPECT_EQ(ParseScheme("runahead"), std::nullopt);
  EXPECT_EQ(ParseScheme(""), std::nullopt);
  for (const Topology topology : {Topology::kChain, Topology::kDirect}) {
    EXPECT_EQ(TopologyOf(SchemeOf(Strategy::kRunahead, topology)), topology);
    EXPECT_EQ(SchemeOf(Strategy::kSingle, topology), Scheme::kSingle);
    EXPECT_EQ(SchemeOf(Strategy::kTspDense, topology), Scheme::kTspDense);
    EXPECT_EQ(SchemeOf(Strategy::kTspCausal, topology), Scheme::kTspCausal);
  }
}

}  // namespace
}  // namespace runahead
