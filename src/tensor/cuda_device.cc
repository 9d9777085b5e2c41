#include "tensor/cuda_device.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <thread>

#include "runahead/error.h"
#include "tensor/cuda_check.h"
#include "tensor/cuda_stream.h"

namespace runahead {
namespace {

/// Asks for a hardware queue for each stream of a GPU, unless the user's environment says otherwise: a stream that
/// waits for another GPU must not hold up its neighbours. The driver reads this once, at the first call of CUDA.
void AskForQueues() {
  static const int asked = ::setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*replace=*/0);
  (void)asked;
}

void Free(void* data, size_t /*bytes*/) { (void)cudaFree(data); }

/// An event that notes when it passes.
class CudaMark final : public Mark {
 public:
  CudaMark(int ordinal, cudaStream_t stream) : ordinal_(ordinal) {
    const CurrentDevice current(ordinal);
    CheckCuda(cudaEventCreate(&event_), ordinal, "cudaEventCreate");
    CheckCuda(cudaEventRecord(event_, stream), ordinal, "cudaEventRecord");
  }
  ~CudaMark() override { (void)cudaEventDestroy(event_); }
  CudaMark(const CudaMark&) = delete;
  CudaMark& operator=(const CudaMark&) = delete;

  [[nodiscard]] double MillisecondsSince(const Mark& earlier) const override {
    float ms = 0;
    CheckCuda(cudaEventElapsedTime(&ms, static_cast<const CudaMark&>(earlier).event_, event_), ordinal_,
              "cudaEventElapsedTime");
    return ms;
  }

 private:
  int ordinal_;
  cudaEvent_t event_ = nullptr;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {
    cudaDeviceProp properties{};
    CheckCuda(cudaGetDeviceProperties(&properties, ordinal), ordinal, "cudaGetDeviceProperties");
    name_ = fmt::format("cuda:{} ({})", ordinal, properties.name);
    const CurrentDevice current(ordinal);
    CheckCuda(cudaHostAlloc(&staging_, kStagingBytes, cudaHostAllocDefault), ordinal, "cudaHostAlloc");
  }
  ~CudaDevice() override { (void)cudaFreeHost(staging_); }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  [[nodiscard]] std::string name() const override { return name_; }

  Buffer Allocate(size_t bytes) override {
    if (bytes == 0) return {};
    const CurrentDevice current(ordinal_);
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes);
    if (error == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();  // a refusal is no failure of the device
      throw ConfigError(
          fmt::format("cuda:{}: no room for {} bytes of memory ({} bytes are free)", ordinal_, bytes, FreeBytes()));
    }
    CheckCuda(error, ordinal_, "cudaMalloc");
    return {data, bytes, &Free};
  }

  [[nodiscard]] size_t FreeBytes() const override {
    const CurrentDevice current(ordinal_);
    size_t free = 0;
    size_t total = 0;
    CheckCuda(cudaMemGetInfo(&free, &total), ordinal_, "cudaMemGetInfo");
    return free;
  }

  [[nodiscard]] bool is_host() const override { return false; }
  bool Reaches(const Device& peer) override {
    const auto* const other = dynamic_cast<const CudaDevice*>(&peer);
    return other != nullptr && EnablePeerAccess(ordinal_, other->ordinal_);
  }

  std::unique_ptr<Stream> NewStream() override {
    const CurrentDevice current(ordinal_);
    cudaStream_t handle = nullptr;
    CheckCuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), ordinal_, "cudaStreamCreate");
    return std::make_unique<CudaStream>(ordinal_, handle);
  }

  void CopyFromHost(void* to, const void* from, size_t bytes, Stream& stream) override {
    CopyAndWait(to, from, bytes, cudaMemcpyHostToDevice, stream);
  }
  void Copy(void* to, const void* from, size_t bytes, Stream& stream) override {
    const CurrentDevice current(ordinal_);
    CheckCuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, static_cast<CudaStream&>(stream).handle()),
              ordinal_, "cudaMemcpyAsync");
  }
  void CopyToHost(void* to, const void* from, size_t bytes, Stream& stream) override {
    if (bytes > kStagingBytes) return CopyAndWait(to, from, bytes, cudaMemcpyDeviceToHost, stream);
    CopyAndWait(staging_, from, bytes, cudaMemcpyDeviceToHost, stream);  // several times faster than to other memory
    std::memcpy(to, staging_, bytes);
  }

 private:
  /// Copies behind the work of `stream` and waits: host memory may be reused, or read, on return.
  void CopyAndWait(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Stream& stream) const {
    const CurrentDevice current(ordinal_);
    CheckCuda(cudaMemcpyAsync(to, from, bytes, kind, static_cast<CudaStream&>(stream).handle()), ordinal_,
              "cudaMemcpyAsync");
    stream.Synchronize();
  }

  static constexpr size_t kStagingBytes = size_t{1} << 20;  // logits fit

  int ordinal_;
  std::string name_;
  void* staging_ = nullptr;  // page-locked
};

}  // namespace

CudaStream::~CudaStream() { (void)cudaStreamDestroy(handle_); }

std::unique_ptr<CudaStream> CudaStream::ForCopies(int ordinal) {
  const CurrentDevice current(ordinal);
  int least = 0;
  int greatest = 0;
  CheckCuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), ordinal, "cudaDeviceGetStreamPriorityRange");
  cudaStream_t stream = nullptr;
  CheckCuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), ordinal, "cudaStreamCreate");
  return std::make_unique<CudaStream>(ordinal, stream);
}

std::unique_ptr<Mark> CudaStream::NewMark() { return std::make_unique<CudaMark>(ordinal_, handle_); }

void CudaStream::Synchronize() { CheckCuda(cudaStreamSynchronize(handle_), ordinal_, "cudaStreamSynchronize"); }

Status CudaStream::Drain(Deadline deadline) {
  // The runtime has no wait that ends. A thread per GPU has nothing better to do than to look again.
  while (true) {
    const cudaError_t state = cudaStreamQuery(handle_);
    if (state == cudaSuccess) return Status::Ok();
    if (state != cudaErrorNotReady) CheckCuda(state, ordinal_, "cudaStreamQuery");
    if (Clock::now() >= deadline) {
      return Status::Failed(fmt::format("cuda:{} did not finish before the deadline", ordinal_));
    }
    std::this_thread::yield();
  }
}

bool BuiltWithCuda() { return true; }

int CudaDeviceCount() {
  AskForQueues();
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();  // no driver, or no GPU
  return 0;
}

std::unique_ptr<Device> MakeCudaDevice(int ordinal) {
  const int count = CudaDeviceCount();
  if (ordinal < 0 || ordinal >= count) {
    throw ConfigError(fmt::format("devices: cuda:{} is not there ({} GPUs are)", ordinal, count));
  }
  return std::make_unique<CudaDevice>(ordinal);
}

}  // namespace runahead
