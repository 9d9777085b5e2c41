#include "ops/devices.h"

#include <gtest/gtest.h>

#include "runahead/error.h"

namespace runahead {
namespace {

TEST(Devices, Parse) {
  EXPECT_EQ(ParseDevices("cpu"), std::vector<RankDevice>(1));
  EXPECT_EQ(ParseDevices("cpu:4"), std::vector<RankDevice>(4));
  EXPECT_EQ(ParseDevices("cuda"), std::vector<RankDevice>{RankDevice{0}});
  EXPECT_EQ(ParseDevices("cuda:2,0"), (std::vector<RankDevice>{RankDevice{2}, RankDevice{0}}));
  EXPECT_EQ(ParseDevices("cuda:1-2,0"), (std::vector<RankDevice>{RankDevice{1}, RankDevice{2}, RankDevice{0}}));
  for (const char* wrong :
       {"cuda:2-1", "cuda:0-", "cuda:-2", "", "cpu:", "cpu:0", "cpu:-1", "cpu:257", "cpu:2x", "cpu:99999999999",
        "gpu", "cpu4", "cuda:", "cuda:x", "cuda:-1", "cuda:256", "cuda:0,", "cuda:,1", "cuda4"}) {
    EXPECT_THROW(ParseDevices(wrong), ConfigError) << wrong;
  }
}

}  // namespace
}  // namespace runahead
