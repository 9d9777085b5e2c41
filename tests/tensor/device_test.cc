// What every device must do, run on the CPU and on each GPU that is there.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "runahead/error.h"
#include "tensor/cpu_device.h"
#include "tensor/cuda_device.h"

namespace runahead {
namespace {

/// The CPU, then all GPUs.
std::vector<std::unique_ptr<Device>> AllDevices() {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(MakeCpuDevice());
  for (int ordinal = 0; ordinal < CudaDeviceCount(); ++ordinal) devices.push_back(MakeCudaDevice(ordinal));
  return devices;
}

TEST(Device, BytesComeBackAsTheyWentAndMemoryIsAligned) {
  std::mt19937 random(3);
  for (const auto& device : AllDevices()) {
    SCOPED_TRACE(device->name());
    const auto stream = device->NewStream();
    for (const size_t bytes : {size_t{1}, size_t{4097}, size_t{3} << 20}) {
      std::vector<unsigned char> sent(bytes);
      for (unsigned char& byte : sent) byte = static_cast<unsigned char>(random());
      const std::vector<unsigned char> expected = sent;
      const Buffer buffer = device->Allocate(bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0U);
      device->CopyFromHost(buffer.data(), sent.data(), bytes, *stream);
      std::memset(sent.data(), 0, bytes);  // the source may be reused
      std::vector<unsigned char> received(bytes);
      device->CopyToHost(received.data(), buffer.data(), bytes, *stream);
      EXPECT_EQ(received, expected);
    }
  }
}

TEST(Device, RefusesWhatDoesNotFitAndWorksOn) {
  for (const auto& device : AllDevices()) {
    SCOPED_TRACE(device->name());
    EXPECT_THROW(device->Allocate(size_t{1} << 50), ConfigError);
    EXPECT_GT(device->FreeBytes(), 0U);
    EXPECT_NE(device->Allocate(64).data(), nullptr);
    EXPECT_EQ(device->Allocate(0).data(), nullptr);
  }
}

TEST(Device, AbsentGpusAreRefusedByNumber) {
  const int absent = CudaDeviceCount();
  try {
    MakeCudaDevice(absent);
    FAIL() << "a GPU beyond the last was made";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("cuda:" + std::to_string(absent)), std::string::npos) << error.what();
  }
}

TEST(Buffer, MovesItsMemory) {
  const auto device = MakeCpuDevice();
  Buffer first = device->Allocate(128);
  std::byte* const data = first.data();
  Buffer second = std::move(first);
  EXPECT_EQ(second.data(), data);
  Buffer third;
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.View(DType::kF32, {4, 8}).bytes(), 128U);
}

#ifdef __SSE2__
TEST(FlushSubnormals, CountsTinyNumbersAsZeroOnTheThreadAndItsChildren) {
  const auto product = [] {
    volatile float tiny = 1e-30F;
    return tiny * 1e-10F;
  };
  float flushed = -1;
  float in_child = -1;
  std::thread([&] {
    FlushSubnormals();
    flushed = product();
    std::thread([&] { in_child = product(); }).join();
  }).join();
  EXPECT_EQ(flushed, 0);
  EXPECT_EQ(in_child, 0);
  EXPECT_GT(product(), 0);
}
#endif

TEST(BindThread, KeepsAThreadOnItsProcessors) {
  const std::vector<int> all = AvailableProcessors();
  ASSERT_FALSE(all.empty());
  BindThread({all.back()});
  EXPECT_EQ(AvailableProcessors(), std::vector<int>{all.back()});
  BindThread(all);
  EXPECT_EQ(AvailableProcessors(), all);
}

}  // namespace
}  // namespace runahead
