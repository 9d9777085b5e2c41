// The one thread of a process that calls UCX.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/descriptor.h"
#include "link/ucx/ucx_api.h"
#include "link/ucx/ucx_fabric.h"
#include "link/ucx/ucx_lane.h"
#include "link/ucx/ucx_message.h"

namespace runahead {

/// Where rows leave from, or go.
struct UcxMemory {
  std::byte* data = nullptr;
  ucs_memory_type_t type = UCS_MEMORY_TYPE_HOST;
};

/// What a group does with what arrives for it. Called on the port's thread, which must not wait.
class UcxReceiver {
 public:
  virtual ~UcxReceiver() = default;
  /// Any message but rows. `text` is what followed the header.
  virtual void Meet(const UcxHeader& header, std::string_view text) = 0;
  /// Where `bytes` of rows go; null data where they were not asked for. Landed follows unless null.
  virtual UcxMemory Land(const UcxHeader& header, size_t bytes) = 0;
  /// `error` null: the rows are there.
  virtual void Landed(const UcxHeader& header, const char* error) = 0;
  /// The process at `address` is gone.
  virtual void Lost(const std::string& address, const std::string& why) = 0;
};

/// Owns UCX's context, its worker, the endpoints to other processes, and the thread. Endpoints are made when first
/// used and stay. Run, Register and Forget are thread-safe; the rest is for the port's thread.
class UcxWorker final : public UcxPort {
 public:
  using Done = std::function<void(const char* error)>;  // error null: it left, and its memory may change

  explicit UcxWorker(const UcxOptions& options);
  ~UcxWorker() override;
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  [[nodiscard]] const std::string& address() const override { return address_; }
  void Register(std::span<std::byte> memory) override;
  void Forget(std::span<std::byte> memory) override;

  /// The way to a GPU of this process, made when first asked for. Any thread may ask.
  [[nodiscard]] UcxLane& LaneOf(Device& device);

  /// Runs `task` on the port's thread, after those before it.
  void Run(std::function<void()> task);
  /// Run, and waits for its end. Throws what the task throws.
  void RunAndWait(const std::function<void()>& task);

  /// From now on `group` gets what arrives for it, and what did already.
  void Attach(uint64_t group, std::shared_ptr<UcxReceiver> receiver);
  void Detach(uint64_t group);
  void SendMessage(const std::string& address, const UcxHeader& header, std::string text = {});
  void SendRows(const std::string& address, const UcxHeader& header, UcxMemory rows, size_t bytes, Done done);
  /// Ends the endpoint to `address`, and with it all that is under way there.
  void Abandon(const std::string& address);

 private:
  /// The connection to one process.
  struct Endpoint {
    UcxWorker* worker = nullptr;
    std::string address;
    ucp_ep_h handle = nullptr;
    bool failed = false;
    std::string why;
  };
  /// Something that UCX works at, until its callback.
  struct Operation;
  /// Rows whose header came.
  struct Landing {
    UcxHeader header;
    void* descriptor = nullptr;
    size_t bytes = 0;
  };
  /// A message that came before its group was known here.
  struct Early {
    UcxHeader header;
    std::string text;
  };

  static void OnError(void* endpoint, ucp_ep_h handle, ucs_status_t status);
  static void OnSent(void* request, ucs_status_t status, void* operation);
  static void OnLanded(void* request, ucs_status_t status, size_t bytes, void* operation);
  static ucs_status_t OnMessage(void* worker, const void* header, size_t header_bytes, void* data, size_t bytes,
                                const ucp_am_recv_param_t* parameters);

  void Open(const UcxOptions& options);
  void Close();
  void Loop();
  void Sleep();
  void RunTasks();
  bool Progress();
  void StartLandings();
  void Receive(const Landing& landing);
  void DropFailed();
  void Finish(void* request);
  Endpoint* EndpointTo(const std::string& address);
  [[nodiscard]] ucp_mem_h HandleOf(const void* data, size_t bytes) const;
  ucs_status_t Accept(const UcxHeader& header, void* data, size_t bytes, bool later);
  void Keep(const UcxHeader& header, std::string_view text);

  ucp_context_h context_ = nullptr;
  bool gpu_memory_ = false;  // UCX knows the memory of NVIDIA's GPUs
  ucp_worker_h worker_ = nullptr;
  int events_ = -1;  // UCX's own descriptor
  Descriptor wake_;  // an eventfd: tasks wait
  std::string address_;

  // For the port's thread alone:
  std::unordered_map<std::string, std::unique_ptr<Endpoint>> endpoints_;  // by address
  std::vector<std::unique_ptr<Endpoint>> closing_;
  std::vector<void*> closes_;  // requests of endpoints that are being closed
  std::unordered_map<uint64_t, std::shared_ptr<UcxReceiver>> groups_;
  std::deque<uint64_t> ended_;  // groups that are over, the last few
  std::deque<Early> early_;
  std::vector<Landing> landings_;
  std::map<const std::byte*, std::pair<size_t, ucp_mem_h>> registered_;  // by address: bytes and handle

  std::mutex making_lanes_;
  std::map<const Device*, std::unique_ptr<UcxLane>> lanes_;  // guarded by making_lanes_
  std::mutex mutex_;
  std::vector<std::function<void()>> tasks_;  // guarded by mutex_
  bool stopping_ = false;                     // guarded by mutex_
  std::thread thread_;                        // last: it uses all of the above
};

}  // namespace runahead
