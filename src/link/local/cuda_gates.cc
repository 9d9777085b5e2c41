#include "link/local/cuda_gates.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "base/check.h"
#include "runahead/error.h"
#include "tensor/cuda_check.h"

namespace runahead {
namespace {

using WordFunction = CUresult (*)(CUstream, CUdeviceptr, cuuint32_t, unsigned);

/// A function of the driver, which programs are not linked with so that they start without one.
WordFunction DriverFunction(const char* name, int gpu) {
  constexpr unsigned kSince = 12000;  // the version whose interface WordFunction is
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  CheckCuda(cudaGetDriverEntryPointByVersion(name, &function, kSince, cudaEnableDefault, &found), gpu, name);
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw DeviceError(std::string(name) + ": this driver does not have it, so links cannot be slowed down");
  }
  return reinterpret_cast<WordFunction>(function);
}

struct WordFunctions {
  WordFunction wait = nullptr;
  WordFunction write = nullptr;
};

const WordFunctions& WordsOfStreams(int gpu) {
  static const WordFunctions functions{DriverFunction("cuStreamWaitValue32", gpu),
                                       DriverFunction("cuStreamWriteValue32", gpu)};
  return functions;
}

void CheckDriver(CUresult result, int gpu, const char* what) {
  CheckCuda(result == CUDA_SUCCESS ? cudaSuccess : cudaErrorUnknown, gpu, what);
}

CUdeviceptr OnGpu(uint32_t* word, int gpu) {
  void* device = nullptr;
  CheckCuda(cudaHostGetDevicePointer(&device, word, 0), gpu, "cudaHostGetDevicePointer");
  return reinterpret_cast<CUdeviceptr>(device);
}

}  // namespace

class PacedGate final : public Gate {
 public:
  PacedGate(PacedGates& gates, PacedGates::Lane& lane) : gates_(gates), lane_(lane) {}

  void Begin(int gpu, cudaStream_t stream, size_t bytes) override {
    const CurrentDevice current(gpu);
    uint32_t number = 0;
    {
      const std::lock_guard lock(gates_.mutex_);
      number = ++lane_.issued;
      lane_.bytes.push_back(bytes);
    }
    gates_.changed_.notify_one();
    CheckDriver(
        WordsOfStreams(gpu).write(stream, OnGpu(&lane_.words->begun, gpu), number, CU_STREAM_WRITE_VALUE_DEFAULT),
        gpu, "cuStreamWriteValue32");
  }

  void End(int gpu, cudaStream_t stream) override {
    const CurrentDevice current(gpu);
    uint32_t number = 0;
    {
      const std::lock_guard lock(gates_.mutex_);
      number = lane_.issued;
    }
    CheckDriver(WordsOfStreams(gpu).wait(stream, OnGpu(&lane_.words->open, gpu), number, CU_STREAM_WAIT_VALUE_GEQ),
                gpu, "cuStreamWaitValue32");
  }

  void OpenForGood() override {
    const std::lock_guard lock(gates_.mutex_);
    lane_.bytes.clear();
    lane_.due.clear();
    lane_.booked = lane_.opened = lane_.issued;
    std::atomic_ref(lane_.words->open).store(lane_.issued, std::memory_order_release);
  }

 private:
  PacedGates& gates_;
  PacedGates::Lane& lane_;
};

PacedGates::PacedGates(const std::vector<int>& gpus, std::shared_ptr<Throttle> throttle)
    : throttle_(std::move(throttle)), first_gpu_(gpus.front()) {
  (void)WordsOfStreams(first_gpu_);
  thread_ = std::thread([this] { Run(); });
}

PacedGates::~PacedGates() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
  for (const Lane& lane : lanes_) (void)cudaFreeHost(lane.words);
}

std::unique_ptr<Gate> PacedGates::Make(int from, int to) {
  const CurrentDevice current(first_gpu_);
  void* memory = nullptr;
  CheckCuda(cudaHostAlloc(&memory, sizeof(Words), cudaHostAllocPortable | cudaHostAllocMapped), first_gpu_,
            "cudaHostAlloc");
  const std::lock_guard lock(mutex_);
  Lane& lane = lanes_.emplace_back();
  lane.from = from;
  lane.to = to;
  lane.words = new (memory) Words{0, 0};
  return std::make_unique<PacedGate>(*this, lane);
}

void PacedGates::Run() {
  constexpr std::chrono::microseconds kBetweenLooks(2);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (Step()) {
      lock.unlock();
      const auto look_again = Clock::now() + kBetweenLooks;  // meanwhile others may post
      while (Clock::now() < look_again) std::this_thread::yield();
      lock.lock();
      continue;
    }
    changed_.wait(lock);
  }
}

bool PacedGates::Step() {
  bool under_way = false;
  for (Lane& lane : lanes_) {
    if (lane.opened == lane.issued) continue;
    under_way = true;
    const uint32_t begun = std::atomic_ref(lane.words->begun).load(std::memory_order_acquire);
    while (lane.booked != lane.issued && static_cast<int32_t>(begun - lane.booked) > 0) {
      const size_t bytes = lane.bytes.front();
      lane.bytes.pop_front();
      lane.due.push_back({++lane.booked, throttle_->Book(lane.from, lane.to, bytes, Clock::now()).end});
    }
    while (!lane.due.empty() && lane.due.front().time <= Clock::now()) {
      lane.opened = lane.due.front().number;
      lane.due.pop_front();
      std::atomic_ref(lane.words->open).store(lane.opened, std::memory_order_release);
    }
  }
  return under_way;
}

}  // namespace runahead
