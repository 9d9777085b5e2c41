#include "tensor/cpu_device.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/deadline.h"
#include "base/host_memory.h"
#include "runahead/error.h"

namespace runahead {
namespace {

void Unmap(void* data, size_t bytes) { ::munmap(data, bytes); }

class CpuMark final : public Mark {
 public:
  [[nodiscard]] double MillisecondsSince(const Mark& earlier) const override {
    const auto passed = time_ - static_cast<const CpuMark&>(earlier).time_;
    return std::chrono::duration<double, std::milli>(passed).count();
  }

 private:
  Clock::time_point time_ = Clock::now();
};

class DrainedStream final : public Stream {
 public:
  std::unique_ptr<Mark> NewMark() override { return std::make_unique<CpuMark>(); }
  void Synchronize() override {}
  Status Drain(Deadline /*deadline*/) override { return Status::Ok(); }
};

class CpuDevice final : public Device {
 public:
  [[nodiscard]] std::string name() const override { return "cpu"; }

  Buffer Allocate(size_t bytes) override {
    if (bytes == 0) return {};
    void* data = MAP_FAILED;
    const FreeMemory free = FreeHostMemory();
    if (bytes <= free.bytes) {
      data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (data == MAP_FAILED) {
      throw ConfigError(fmt::format("cpu: no room for {} bytes of memory ({} bytes are free, bounded by {})", bytes,
                                    free.bytes, free.bound));
    }
    ::madvise(data, bytes, MADV_HUGEPAGE);
    return {data, bytes, &Unmap};
  }

  [[nodiscard]] size_t FreeBytes() const override { return FreeHostMemory().bytes; }
  std::unique_ptr<Stream> NewStream() override { return std::make_unique<DrainedStream>(); }
  void CopyFromHost(void* to, const void* from, size_t bytes, Stream& /*stream*/) override {
    std::memcpy(to, from, bytes);
  }
  void Copy(void* to, const void* from, size_t bytes, Stream& /*stream*/) override { std::memcpy(to, from, bytes); }
  void CopyToHost(void* to, const void* from, size_t bytes, Stream& /*stream*/) override {
    std::memcpy(to, from, bytes);
  }
};

}  // namespace

std::vector<int> AvailableProcessors() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  std::vector<int> processors;
  if (::sched_getaffinity(0, sizeof mask, &mask) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &mask)) processors.push_back(i);
    }
  }
  if (processors.empty()) processors.push_back(0);
  return processors;
}

std::string CpuModel() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

void BindThread(const std::vector<int>& processors) {
  if (processors.empty()) return;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int i : processors) CPU_SET(i, &mask);
  (void)::pthread_setaffinity_np(::pthread_self(), sizeof mask, &mask);
}

void FlushSubnormals() {
#ifdef __SSE2__
  constexpr unsigned kFlushResults = 0x8000;
  constexpr unsigned kFlushOperands = 0x0040;
  _mm_setcsr(_mm_getcsr() | kFlushResults | kFlushOperands);
#endif
}

std::unique_ptr<Device> MakeCpuDevice() { return std::make_unique<CpuDevice>(); }

}  // namespace runahead
