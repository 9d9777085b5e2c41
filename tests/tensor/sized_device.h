// A device that says how much memory it has free, whatever the machine has.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "tensor/cpu_device.h"

namespace runahead {

/// Host memory under another name.
class SizedDevice final : public Device {
 public:
  SizedDevice(std::string name, size_t free, bool is_host) : name_(std::move(name)), free_(free), is_host_(is_host) {}
  [[nodiscard]] bool is_host() const override { return is_host_; }
  [[nodiscard]] std::string name() const override { return name_; }
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
  std::string name_;
  size_t free_;
  bool is_host_;
  std::unique_ptr<Device> device_ = MakeCpuDevice();
};

}  // namespace runahead
