// Memory is added up before it is taken, and a refusal says what for.
#include "tensor/memory_plan.h"

#include <gtest/gtest.h>

#include "runahead/error.h"
#include "tests/tensor/sized_device.h"

namespace runahead {
namespace {

std::string Refusal(const MemoryPlan& plan, size_t free) {
  try {
    plan.CheckFits("a prompt of 9 tokens", SizedDevice("cuda:0 (NVIDIA Test)", free, true));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "fits";
}

TEST(MemoryPlan, RefusesWithTheNumbers) {
  MemoryPlan plan;
  plan.Add("KV-cache", 1'500'000'000);
  plan.Add("workspace", 20'000'000);
  plan.Add("position tables", 0);
  plan.Add("KV-cache", 500'000'000);
  EXPECT_EQ(plan.bytes(), 2'020'000'000U);
  EXPECT_EQ(Refusal(plan, 2'020'000'000), "fits");
  EXPECT_EQ(Refusal(plan, 2'019'999'999),
            "a prompt of 9 tokens: needs 2.02 GB of memory (KV-cache 2.00 GB, workspace 20.0 MB), "
            "cuda:0 (NVIDIA Test) has 2.02 GB free");
  EXPECT_EQ(Refusal(plan, 999),
            "a prompt of 9 tokens: needs 2.02 GB of memory (KV-cache 2.00 GB, workspace 20.0 MB), "
            "cuda:0 (NVIDIA Test) has 999 bytes free");
}

TEST(MemoryPlan, NothingFitsEverywhere) { EXPECT_EQ(Refusal(MemoryPlan(), 0), "fits"); }

}  // namespace
}  // namespace runahead
