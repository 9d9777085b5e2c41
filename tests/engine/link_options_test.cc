#include "engine/link_options.h"

#include <gtest/gtest.h>

#include "runahead/error.h"

namespace runahead {
namespace {

LinkOptions Parse(const std::string& link_bandwidth, const std::string& rank_bandwidth, int ranks) {
  EngineOptions options;
  options.link_bandwidth = link_bandwidth;
  options.rank_bandwidth = rank_bandwidth;
  return ParseLinkOptions(options, ranks);
}

TEST(LinkOptions, ParseLimits) {
  EXPECT_FALSE(Parse("", "", 2).rates.any());
  EXPECT_EQ(Parse("10GB/s", "", 2).rates.of_link, std::vector<double>(4, 1e10));
  EXPECT_EQ(Parse("0-1=10GB/s,1-0=500MB/s", "", 2).rates.of_link, (std::vector<double>{0, 1e10, 5e8, 0}));
  EXPECT_EQ(Parse("80Gbit/s,1-0=2kB/s", "", 2).rates.of_link, (std::vector<double>{1e10, 1e10, 2e3, 1e10}));
  EXPECT_EQ(Parse("", "2.5MB/s", 3).rates.of_rank, std::vector<double>(3, 2.5e6));
  EXPECT_EQ(Parse("", "1GB/s,2GB/s", 2).rates.of_rank, (std::vector<double>{1e9, 2e9}));
  EXPECT_EQ(Parse("0-1=4GB/s", "1GB/s,9GB/s", 2).rates.Between(0, 1, 2), 1e9);
  EXPECT_EQ(Parse("0-1=4GB/s", "", 2).rates.Between(1, 0, 2), 0);
  EXPECT_EQ(Parse("1GB/s", "2GB/s", 2).limits, "links limited to 1GB/s, ranks limited to 2GB/s");
  for (const char* wrong : {"10", "GB/s", "10GB", "-1GB/s", "nanGB/s", "0GB/s", "1e99GB/s", "0-1=", "0-0=1GB/s",
                            "0-2=1GB/s", "x-1=1GB/s", "0=1GB/s", "1GB/s,", ",", "0-1=1GB/s;1-0=1GB/s"}) {
    EXPECT_THROW(Parse(wrong, "", 2), ConfigError) << wrong;
  }
  for (const char* wrong : {"10", "1GB/s,", "1GB/s,1GB/s,1GB/s", "0-1=1GB/s"}) {
    EXPECT_THROW(Parse("", wrong, 2), ConfigError) << wrong;
  }
}

TEST(LinkOptions, LimitsReachTheSimulator) {
  ClusterCosts costs;
  costs.devices.resize(3);
  costs.links = LinkTable(3, {1e-5, 5e9, 0, Mover::kThread});
  const ClusterCosts links = Limited(costs, Parse("0-1=1GB/s,0-2=9GB/s", "", 3).rates);
  EXPECT_EQ(links.links.Between(0, 1).bytes_per_s, 1e9);
  EXPECT_EQ(links.links.Between(0, 1).mover, Mover::kEngine);
  EXPECT_EQ(links.links.Between(0, 2).bytes_per_s, 5e9);
  EXPECT_EQ(links.links.Between(1, 0), costs.links.Between(1, 0));
  EXPECT_NE(links.links.ResourcesOf(0, 1), links.links.ResourcesOf(0, 2));
  const ClusterCosts ranks = Limited(costs, Parse("", "1GB/s", 3).rates);
  EXPECT_EQ(ranks.links.ResourcesOf(0, 1)[0], ranks.links.ResourcesOf(0, 2)[0]);
  EXPECT_EQ(ranks.links.ResourcesOf(0, 2)[1], ranks.links.ResourcesOf(1, 2)[1]);
}

}  // namespace
}  // namespace runahead
