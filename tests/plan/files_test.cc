// The files of the planner: what is written reads back, and what does not fit is refused by name and value.
#include <gtest/gtest.h>

#include <random>

#include "base/json.h"
#include "plan/cluster.h"
#include "plan/cost_profile.h"
#include "plan/partition_table.h"
#include "runahead/error.h"
#include "tests/plan/random_cases.h"

namespace runahead {
namespace {

template <typename Function>
std::string RefusalOf(Function&& function) {
  try {
    function();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing was refused";
}

CostProfile RandomProfile() {
  std::mt19937 random(1);
  CostProfile profile;
  profile.key = {SmallShape().ToString(), "bf16", {"fast", "slow"}};
  profile.active[1] = RandomCosts(random, 2, Mover::kThread);
  profile.active[2] = RandomCosts(random, 2, Mover::kEngine);
  return profile;
}

TEST(CostProfile, ReadsBackWhatItWrote) {
  const CostProfile profile = RandomProfile();
  const CostProfile back = ParseCostProfile(ToJson(profile), "p.json");
  EXPECT_EQ(back.key, profile.key);
  ASSERT_EQ(back.active.size(), 2U);
  for (const int active : {1, 2}) {
    const ClusterCosts& expected = profile.While(active);
    const ClusterCosts& got = back.While(active);
    EXPECT_NEAR(got.start_s, expected.start_s, 1e-12);
    EXPECT_NEAR(got.links.Between(0, 1).bytes_per_s, expected.links.Between(0, 1).bytes_per_s, 1e-6);
    EXPECT_EQ(got.links.Between(1, 0).mover, expected.links.Between(1, 0).mover);
    for (const int64_t rows : {1, 50, 100, 300}) {
      EXPECT_NEAR(got.devices[1].At(rows).layer_s, expected.devices[1].At(rows).layer_s, 1e-9);
      EXPECT_NEAR(got.devices[0].At(rows).pair_s, expected.devices[0].At(rows).pair_s, 1e-12);
    }
  }
}

TEST(CostProfile, IsRefusedForAnythingElseThanItWasMeasuredFor) {
  const ProfileKey key = RandomProfile().key;
  const auto refusal = [&](const ProfileKey& wanted) { return RefusalOf([&] { key.CheckFits(wanted, "p.json"); }); };
  EXPECT_EQ(refusal(key), "nothing was refused");
  ProfileKey other = key;
  other.devices[1] = "faster";
  EXPECT_EQ(refusal(other),
            "p.json: measured for device 1 'slow', but here it is 'faster'; `runahead tune` measures anew");
  other.devices.pop_back();
  EXPECT_NE(refusal(other).find("ranks '2', but here it is '1'"), std::string::npos);
  other = key;
  other.dtype = "f32";
  EXPECT_NE(refusal(other).find("dtype 'bf16', but here it is 'f32'"), std::string::npos);
  other = key;
  WorkShape shape = SmallShape();
  shape.windows = {0, 4, 0};
  other.model = shape.ToString();
  EXPECT_NE(refusal(other).find("windows 0/4/0"), std::string::npos);
}

TEST(CostProfile, RefusesFilesByFieldAndValue) {
  const auto refusal = [](const std::function<void(Json&)>& change) {
    Json json = Json::parse(ToJson(RandomProfile()));
    change(json);
    return RefusalOf([&] { ParseCostProfile(json.dump(), "p.json"); });
  };
  EXPECT_NE(RefusalOf([] { ParseCostProfile("{", "p.json"); }).find("p.json"), std::string::npos);
  EXPECT_NE(refusal([](Json& json) { json["version"] = 9; }).find("version"), std::string::npos);
  EXPECT_NE(refusal([](Json& json) { json.erase("key"); }).find("key"), std::string::npos);
  EXPECT_NE(refusal([](Json& json) { json["measured"] = Json::array(); }).find("measured"), std::string::npos);
  EXPECT_NE(refusal([](Json& json) {
              json["measured"][0]["devices"][0]["rows"][1]["rows"] = 1;
            }).find("p.json: measured[0]: devices[0]: rows[1]: rows: expected an integer from 2"),
            std::string::npos);
  EXPECT_NE(refusal([](Json& json) {
              json["measured"][0]["links"][0]["bandwidth_gbs"] = 0;
            }).find("links[0]: bandwidth_gbs: expected a number of at least"),
            std::string::npos);
  EXPECT_NE(refusal([](Json& json) { json["measured"][0]["links"][0]["to"] = 2; }).find("got 2"), std::string::npos);
}

TEST(PartitionTable, ReadsBackFindsAndReplaces) {
  PartitionTable table{RandomProfile().key, {}};
  table.Put({Scheme::kRunaheadChain, Partition({0, 60, 100}), 1.5});
  table.Put({Scheme::kRunaheadChain, Partition({0, 70, 100}), 1.25});
  table.Put({Scheme::kRunaheadDirect, Partition({0, 130, 200}), 4});
  const PartitionTable back = ParsePartitionTable(ToJson(table), "t.json");
  ASSERT_EQ(back.entries.size(), 2U);
  ASSERT_NE(back.Find(Scheme::kRunaheadChain, 2, 100), nullptr);
  EXPECT_EQ(back.Find(Scheme::kRunaheadChain, 2, 100)->partition.ToString(), "70/30");
  EXPECT_EQ(back.Find(Scheme::kRunaheadChain, 2, 101), nullptr);
  EXPECT_EQ(back.Find(Scheme::kRunaheadChain, 3, 100), nullptr);
}

TEST(PartitionTable, RefusesFilesByFieldAndValue) {
  const auto refusal = [](const std::string& entry) {
    return RefusalOf([&] {
      ParsePartitionTable(
          R"({"version":1,"key":{"model":"m","dtype":"f32","devices":["a","b"]},"partitions":[)" + entry + "]}",
          "t.json");
    });
  };
  EXPECT_NE(refusal(R"({"scheme":"ring","cuts":[0,1],"ttft_ms":1})").find("t.json: partitions[0]: scheme"),
            std::string::npos);
  for (const char* cuts : {"[0]", "[1,2]", "[0,2,2]", "[0,1,2,3]", "[0,1.5]", "7"}) {
    const std::string message =
        refusal(std::string(R"({"scheme":"runahead chain","cuts":)") + cuts + R"(,"ttft_ms":1})");
    EXPECT_NE(message.find("partitions[0]: cuts"), std::string::npos) << cuts << ": " << message;
  }
  EXPECT_NE(refusal(R"({"scheme":"single","cuts":[0,1],"ttft_ms":-1})").find("ttft_ms"), std::string::npos);
}

constexpr const char* kCluster = R"(
model = "llama-7b"
contexts = [1024]
[[devices]]
name = "a"
count = 2
tflops = 100
[[devices]]
name = "b"
host = "other"
tflops = 50
slowdown = 2
[links]
bandwidth_gbs = 100
[network]
bandwidth_gbs = 10
latency_us = 50
[[link]]
from = 0
to = 1
bandwidth_gbs = 5
)";

TEST(Cluster, ReadsDevicesHostsAndLinks) {
  const Cluster cluster = ParseCluster(kCluster, "c.toml");
  ASSERT_EQ(cluster.devices.size(), 3U);
  EXPECT_EQ(cluster.links.Between(0, 1).bytes_per_s, 5e9);
  EXPECT_EQ(cluster.links.Between(1, 0).bytes_per_s, 100e9);
  EXPECT_DOUBLE_EQ(cluster.links.Between(0, 2).latency_s, 50e-6);
  EXPECT_EQ(cluster.links.ResourcesOf(0, 2)[0], cluster.links.ResourcesOf(1, 2)[0]) << "one card for both";
  const ClusterCosts costs = cluster.CostsFor(SmallShape(), "");
  EXPECT_NEAR(costs.devices[2].At(1000).layer_s, 4 * costs.devices[0].At(1000).layer_s, 1e-12);
}

TEST(Cluster, RefusesByFileKeyAndValue) {
  const auto refusal = [](std::string from, const std::string& to) {
    std::string text = kCluster;
    const size_t found = text.find(from);
    EXPECT_NE(found, std::string::npos) << from;
    text.replace(found, from.size(), to);
    return RefusalOf([&] { ParseCluster(text, "c.toml"); });
  };
  EXPECT_EQ(refusal("tflops = 100", "tflops = \"fast\""),
            "c.toml: devices[0]: tflops: expected a number, got \"fast\"");
  EXPECT_EQ(refusal("tflops = 100", "tflops = -1").find("c.toml: devices[0]: tflops: expected a number of at least"),
            0U);
  EXPECT_EQ(refusal("tflops = 100", "").find("c.toml: devices[0]: tflops is missing"), 0U);
  EXPECT_EQ(refusal("count = 2", "cuont = 2").find("c.toml: devices[0]: cuont: is not known here"), 0U);
  EXPECT_EQ(refusal("count = 2", "count = 0").find("c.toml: devices[0]: count: expected an integer from 1"), 0U);
  EXPECT_EQ(refusal("contexts = [1024]", "contexts = [0]").find("c.toml: contexts: expected integers from 1"), 0U);
  EXPECT_EQ(refusal("[links]", "[lniks]").find("c.toml: lniks: is not known here"), 0U);
  EXPECT_EQ(refusal("[network]\nbandwidth_gbs = 10\nlatency_us = 50\n", "").find("c.toml: network is missing"), 0U);
  EXPECT_EQ(refusal("to = 1", "to = 3").find("c.toml: link[0]: to: expected an integer from 0 to 2, got 3"), 0U);
  EXPECT_EQ(refusal("[links]", "[links").find("c.toml: line "), 0U);
  EXPECT_NE(refusal("slowdown = 2", "slowdown = 0.5").find("devices[1]: slowdown"), std::string::npos);
  EXPECT_NE(refusal("slowdown = 2", "efficiency = 1.5").find("share from 0 to 1, got 1.5"), std::string::npos);
  EXPECT_NE(refusal("slowdown = 2", "since = 1979-05-27").find("dates"), std::string::npos);
}

TEST(Cluster, EveryPresetIsOne) {
  for (const ClusterPreset& preset : ClusterPresets()) {
    const Cluster cluster = ParseCluster(preset.toml, std::string(preset.name));
    EXPECT_GE(cluster.devices.size(), 4U) << preset.name;
    EXPECT_EQ(cluster.CostsFor(SmallShape(), "").ranks(), static_cast<int>(cluster.devices.size()));
  }
  EXPECT_NE(RefusalOf([] { FindClusterPreset("9xh100"); }).find("8xh100-nvlink"), std::string::npos);
}

}  // namespace
}  // namespace runahead
