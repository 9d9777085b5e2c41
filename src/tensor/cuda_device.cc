#include "tensor/cuda_device.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "runahead/error.h"
#include "tensor/cuda_stream.h"

namespace runahead {
namespace {

void CheckCuda(cudaError_t error, int ordinal, const char* what) {
  if (error == cudaSuccess) return;
  throw DeviceError(fmt::format("cuda:{}: {} failed: {}", ordinal, what, cudaGetErrorString(error)));
}

/// Makes a GPU the calling thread's current one while it lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int ordinal) {
    CheckCuda(cudaGetDevice(&before_), ordinal, "cudaGetDevice");
    CheckCuda(cudaSetDevice(ordinal), ordinal, "cudaSetDevice");
  }
  ~CurrentDevice() { (void)cudaSetDevice(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

void Free(void* data, size_t /*bytes*/) { (void)cudaFree(data); }

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {
    cudaDeviceProp properties{};
    CheckCuda(cudaGetDeviceProperties(&properties, ordinal), ordinal, "cudaGetDeviceProperties");
    name_ = fmt::format("cuda:{} ({})", ordinal, properties.name);
  }

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

  std::unique_ptr<Stream> NewStream() override {
    const CurrentDevice current(ordinal_);
    cudaStream_t handle = nullptr;
    CheckCuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), ordinal_, "cudaStreamCreate");
    return std::make_unique<CudaStream>(ordinal_, handle);
  }

  void CopyFromHost(void* to, const void* from, size_t bytes, Stream& stream) override {
    Copy(to, from, bytes, cudaMemcpyHostToDevice, stream);
  }
  void CopyToHost(void* to, const void* from, size_t bytes, Stream& stream) override {
    Copy(to, from, bytes, cudaMemcpyDeviceToHost, stream);
  }

 private:
  /// Copies behind the work of `stream` and waits: host memory may be reused, or read, on return.
  void Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Stream& stream) const {
    const CurrentDevice current(ordinal_);
    CheckCuda(cudaMemcpyAsync(to, from, bytes, kind, static_cast<CudaStream&>(stream).handle()), ordinal_,
              "cudaMemcpyAsync");
    stream.Synchronize();
  }

  int ordinal_;
  std::string name_;
};

}  // namespace

CudaStream::~CudaStream() { (void)cudaStreamDestroy(handle_); }

void CudaStream::Synchronize() { CheckCuda(cudaStreamSynchronize(handle_), ordinal_, "cudaStreamSynchronize"); }

bool BuiltWithCuda() { return true; }

int CudaDeviceCount() {
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
