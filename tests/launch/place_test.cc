// What each launcher's variables mean.
#include "launch/place.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "runahead/error.h"

namespace runahead {
namespace {

using Variables = std::map<std::string, std::string>;

std::string Found(const Variables& variables) {
  const auto place = FindPlace([&](const char* name) {
    const auto entry = variables.find(name);
    return entry == variables.end() ? nullptr : entry->second.c_str();
  });
  if (!place.has_value()) return "nowhere";
  return fmt::format("{} {}/{} local {} at {}:{}", place->launcher, place->rank, place->ranks, place->local_rank,
                     place->master_host, place->master_port);
}

std::string Refused(const Variables& variables) {
  try {
    return "found: " + Found(variables);
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(Place, IsNowhereWithoutALauncher) {
  EXPECT_EQ(Found({}), "nowhere");
  EXPECT_EQ(Found({{"MASTER_ADDR", "a"}, {"WORLD_SIZE", "2"}}), "nowhere");
  EXPECT_EQ(Found({{"RANK", "1"}}), "nowhere");
  // A batch script of Slurm's, outside srun.
  EXPECT_EQ(Found({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_JOB_NODELIST", "n[1-4]"}}), "nowhere");
}

TEST(Place, IsFoundFromEveryLauncher) {
  const Variables plain = {{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "box"}, {"MASTER_PORT", "29500"}};
  EXPECT_EQ(Found(plain), "RANK 1/4 local 0 at box:29500");
  Variables torchrun = plain;
  torchrun.insert({{"LOCAL_RANK", "1"}, {"TORCHELASTIC_RUN_ID", "none"}});
  EXPECT_EQ(Found(torchrun), "torchrun 1/4 local 1 at box:23419");
  EXPECT_EQ(Found({{"OMPI_COMM_WORLD_RANK", "2"},
                   {"OMPI_COMM_WORLD_SIZE", "3"},
                   {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                   {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"}}),
            "mpirun 2/3 local 2 at 127.0.0.1:29400");
  EXPECT_EQ(Found({{"LWS_WORKER_INDEX", "1"}, {"LWS_GROUP_SIZE", "2"}, {"LWS_LEADER_ADDRESS", "lws-0.lws.default"}}),
            "LeaderWorkerSet 1/2 local 0 at lws-0.lws.default:29400");
}

TEST(Place, TakesSlurmsFirstHost) {
  for (const auto& [list, host] : Variables{{"node[07-12,15],other", "node07"},
                                            {"node[3,5]", "node3"},
                                            {"rack[1-2]-ib", "rack1-ib"},
                                            {"alone", "alone"},
                                            {"a,b", "a"}}) {
    EXPECT_EQ(Found({{"SLURM_PROCID", "1"},
                     {"SLURM_NTASKS", "2"},
                     {"SLURM_LOCALID", "0"},
                     {"SLURM_STEP_ID", "0"},
                     {"SLURM_STEP_NODELIST", list},
                     {"MASTER_PORT", "5"}}),
              "srun 1/2 local 0 at " + host + ":5");
  }
}

TEST(Place, RefusesValuesThatMakeNoSense) {
  const Variables good = {{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "box"}};
  const auto with = [&](const std::string& name, const std::string& value) {
    Variables changed = good;
    changed[name] = value;
    return Refused(changed);
  };
  EXPECT_EQ(with("RANK", "4"), "RANK=4: a number from 0 to 3 is wanted");
  EXPECT_EQ(with("RANK", ""), "RANK=: a number from 0 to 3 is wanted");
  EXPECT_EQ(with("WORLD_SIZE", "4x"), "WORLD_SIZE=4x: a number from 1 to 4096 is wanted");
  EXPECT_EQ(with("MASTER_PORT", "65536"), "MASTER_PORT=65536: a number from 1 to 65535 is wanted");
  EXPECT_EQ(Refused({{"OMPI_COMM_WORLD_RANK", "1"}}),
            "OMPI_COMM_WORLD_SIZE is not set, though other variables of its launcher are");
  EXPECT_EQ(Refused({{"RANK", "1"}, {"WORLD_SIZE", "2"}}),
            "MASTER_ADDR is not set: 2 ranks of RANK must know the host of rank 0");
}

}  // namespace
}  // namespace runahead
