#include "runahead/options.h"

#include <gtest/gtest.h>

#include "engine/devices.h"
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
  EXPECT_THROW(ParseStrategy("ring"), ConfigError);
  EXPECT_THROW(ParseTopology(""), ConfigError);
}

TEST(Options, ParsePartitions) {
  EXPECT_EQ(PartitionRequest::Parse("even").kind, PartitionKind::kEven);
  EXPECT_EQ(PartitionRequest::Parse("auto").kind, PartitionKind::kAuto);
  EXPECT_EQ(PartitionRequest::Parse("5,4.5,3e0").fractions, (std::vector<double>{5, 4.5, 3}));
  for (const char* wrong : {"", ",", "1,", "1,,2", "1,x", "0,1", "-1,2", "nan,1", "inf", "1 2", "1e999", "uneven"}) {
    EXPECT_THROW(PartitionRequest::Parse(wrong), ConfigError) << wrong;
  }
}

TEST(Options, ParseDevices) {
  EXPECT_EQ(ParseDevices("cpu"), std::vector<RankDevice>(1));
  EXPECT_EQ(ParseDevices("cpu:4"), std::vector<RankDevice>(4));
  EXPECT_EQ(ParseDevices("cuda"), std::vector<RankDevice>{RankDevice{0}});
  EXPECT_EQ(ParseDevices("cuda:2,0"), (std::vector<RankDevice>{RankDevice{2}, RankDevice{0}}));
  for (const char* wrong : {"", "cpu:", "cpu:0", "cpu:-1", "cpu:257", "cpu:2x", "cpu:99999999999", "gpu", "cpu4",
                            "cuda:", "cuda:x", "cuda:-1", "cuda:256", "cuda:0,", "cuda:,1", "cuda4"}) {
    EXPECT_THROW(ParseDevices(wrong), ConfigError) << wrong;
  }
}

}  // namespace
}  // namespace runahead
