// Memory is added up before it is taken, and a refusal says what for.
#include "tensor/memory_plan.h"

#include <gtest/gtest.h>

#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

/// A device that says how much it has free, whatever the machine has.
class SizedDevice final : public Device {
 public:
  explicit SizedDevice(size_t free) : free_(free) {}
  [[nodiscard]] std::string name() const override { return "cuda:0 (NVIDIA Test)"; }
  Buffer Allocate(size_t bytes) override { return device_->Allocate(bytes); }
  [[nodiscard]] size_t FreeBytes() const override { return free_; }
  std::unique_ptr<Stream> NewStream() override { return device_->NewStream(); }
  void CopyFromHost(void* to, const void* from, size_t bytes, Stream& stream) override {
    device_->CopyFromHost(to, from, bytes, stream);
  }
  void Copy(void* to, const void* from, size_t bytes, Stream& stream) override {
    device_->Copy(to, from, bytes, stream);
  }
  void CopyToHost(void* to, const void* from, size_t bytes, Stream& stream) override {
    device_->CopyToHost(to, from, bytes, stream);
  }

 private:
  size_t free_;
  std::unique_ptr<Device> device_ = MakeCpuDevice();
};

std::string Refusal(const MemoryPlan& plan, size_t free) {
  try {
    plan.CheckFits("a prompt of 9 tokens", SizedDevice(free));
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
