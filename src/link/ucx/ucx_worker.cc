#include "link/ucx/ucx_worker.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <future>

#include "base/deadline.h"
#include "link/ucx/ucx_address.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr unsigned kMessage = 1;  // id of our active messages
/// What is still on its way when a process ends gets this long to leave.
constexpr auto kLeave = std::chrono::seconds(2);

std::string DescribeEvents(int error) { return std::generic_category().message(error); }

/// The thread that calls UCX would wait for each TCP connection, for minutes where the other host is cut off. The
/// option's name has its prefix in some versions; they warn of names that they do not know.
void WaitForNoConnection(ucp_config_t* config) {
  if (std::getenv("UCX_TCP_CONN_NB") != nullptr) return;
  (void)Ucx().config_modify(config, "WARN_INVALID_CONFIG", "n");
  for (const char* const name : {"CONN_NB", "TCP_CONN_NB"}) (void)Ucx().config_modify(config, name, "y");
}

ucp_config_t* ReadConfig(const UcxOptions& options) {
  ucp_config_t* config = nullptr;
  CheckUcx(Ucx().config_read(nullptr, nullptr, &config), "reading its settings");
  WaitForNoConnection(config);
  if (!options.one_host || std::getenv("UCX_TLS") != nullptr) return config;
  const ucs_status_t status = Ucx().config_modify(config, "TLS", "^tcp");
  if (status == UCS_OK) return config;
  Ucx().config_release(config);
  throw LinkError(fmt::format("UCX does not work without TCP: {}", Ucx().status_string(status)));
}

}  // namespace

UcxWorker::UcxWorker(const UcxOptions& options) {
  try {
    Open(options);
  } catch (const Error&) {
    Close();
    throw;
  }
  thread_ = std::thread([this] { Loop(); });
}

UcxWorker::~UcxWorker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  (void)::eventfd_write(wake_.get(), 1);
  thread_.join();
  Close();
}

void UcxWorker::Open(const UcxOptions& options) {
  ucp_config_t* const config = ReadConfig(options);
  ucp_params_t parameters{};
  parameters.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  parameters.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  parameters.mt_workers_shared = 0;
  const ucs_status_t made = Ucx().init_version(UCP_API_MAJOR, UCP_API_MINOR, &parameters, config, &context_);
  Ucx().config_release(config);
  if (made != UCS_OK) context_ = nullptr;
  CheckUcx(made, "opening devices");
  ucp_context_attr_t known{};
  known.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES;
  CheckUcx(Ucx().context_query(context_, &known), "asking for its memory types");
  gpu_memory_ = (known.memory_types & UCS_BIT(UCS_MEMORY_TYPE_CUDA)) != 0;

  ucp_worker_params_t of_worker{};
  of_worker.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  of_worker.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  CheckUcx(Ucx().worker_create(context_, &of_worker, &worker_), "making a worker");
  CheckUcx(Ucx().worker_get_efd(worker_, &events_), "getting its descriptor");
  wake_ = Descriptor(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake_) throw LinkError(fmt::format("no eventfd: {}", DescribeEvents(errno)));

  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kUcxMessage;
  handler.cb = &UcxWorker::OnMessage;
  handler.arg = this;
  CheckUcx(Ucx().set_am_handler(worker_, &handler), "setting its handler");

  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  CheckUcx(Ucx().worker_get_address(worker_, &address, &bytes), "getting its address");
  address_ = WrapUcxAddress({reinterpret_cast<const char*>(address), bytes});
  Ucx().worker_release_address(worker_, address);
}

void UcxWorker::Close() {
  for (const auto& [begin, entry] : registered_) (void)Ucx().mem_unmap(context_, entry.second);
  if (worker_ != nullptr) Ucx().worker_destroy(worker_);
  if (context_ != nullptr) Ucx().cleanup(context_);
}

void UcxWorker::Register(std::span<std::byte> memory) {
  if (memory.empty()) return;
  RunAndWait([&] {
    ucp_mem_map_params_t parameters{};
    parameters.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
    parameters.address = memory.data();
    parameters.length = memory.size();
    ucp_mem_h handle = nullptr;
    if (Ucx().mem_map(context_, &parameters, &handle) != UCS_OK) return;  // each transfer registers by itself then
    registered_[memory.data()] = {memory.size(), handle};
  });
}

void UcxWorker::Forget(std::span<std::byte> memory) {
  RunAndWait([&] {
    const auto entry = registered_.find(memory.data());
    if (entry == registered_.end()) return;
    (void)Ucx().mem_unmap(context_, entry->second.second);
    registered_.erase(entry);
  });
}

ucp_mem_h UcxWorker::HandleOf(const void* data, size_t bytes) const {
  const auto* const begin = static_cast<const std::byte*>(data);
  auto entry = registered_.upper_bound(begin);
  if (entry == registered_.begin()) return nullptr;
  --entry;
  const auto& [size, handle] = entry->second;
  return begin + bytes <= entry->first + size ? handle : nullptr;
}

UcxLane& UcxWorker::LaneOf(Device& device) {
  const std::lock_guard lock(making_lanes_);
  std::unique_ptr<UcxLane>& lane = lanes_[&device];
  if (lane == nullptr) {
    lane = MakeUcxLane(device, gpu_memory_);
    RunAndWait([&] { lane->Enter(); });
  }
  return *lane;
}

void UcxWorker::Run(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  (void)::eventfd_write(wake_.get(), 1);
}

void UcxWorker::RunAndWait(const std::function<void()>& task) {
  std::promise<void> ended;
  Run([&] {
    try {
      task();
      ended.set_value();
    } catch (...) {
      ended.set_exception(std::current_exception());
    }
  });
  ended.get_future().get();
}

void UcxWorker::Loop() {
  while (true) {
    RunTasks();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ && tasks_.empty()) break;
    }
    if (Progress()) continue;
    if (Ucx().worker_arm(worker_) == UCS_ERR_BUSY) continue;
    Sleep();
  }
  const Deadline leave = After(kLeave);
  ucp_request_param_t parameters{};
  std::vector<void*> pending{Ucx().worker_flush(worker_, &parameters)};
  const auto done = [](void* request) {
    return !UCS_PTR_IS_PTR(request) || Ucx().request_status(request) != UCS_INPROGRESS;
  };
  while (!done(pending.front()) && Clock::now() < leave) {
    if (!Progress() && Ucx().worker_arm(worker_) != UCS_ERR_BUSY) Sleep();
  }
  if (UCS_PTR_IS_PTR(pending.front())) Ucx().request_free(pending.front());
  std::vector<std::string> open;
  for (const auto& [address, endpoint] : endpoints_) open.push_back(address);
  for (const std::string& address : open) Abandon(address);
  const Deadline closed = After(kLeave);
  while (!closes_.empty() && Clock::now() < closed) (void)Progress();
}

/// Until something arrives or a task waits. While the process ends: for a moment.
void UcxWorker::Sleep() {
  int timeout_ms = -1;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) timeout_ms = 10;
  }
  std::array<pollfd, 2> waits{pollfd{events_, POLLIN, 0}, pollfd{wake_.get(), POLLIN, 0}};
  (void)::poll(waits.data(), waits.size(), timeout_ms);
}

void UcxWorker::RunTasks() {
  eventfd_t count = 0;
  (void)::eventfd_read(wake_.get(), &count);
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (const auto& task : tasks) task();
}

/// Whether anything happened.
bool UcxWorker::Progress() {
  bool any = Ucx().worker_progress(worker_) != 0;
  if (!landings_.empty()) {
    StartLandings();
    any = true;
  }
  DropFailed();
  std::erase_if(closes_, [](void* request) {
    if (Ucx().request_status(request) == UCS_INPROGRESS) return false;
    Ucx().request_free(request);
    return true;
  });
  if (closes_.empty()) closing_.clear();
  return any;
}

UcxWorker::Endpoint* UcxWorker::EndpointTo(const std::string& address) {
  std::unique_ptr<Endpoint>& endpoint = endpoints_[address];
  if (endpoint != nullptr) return endpoint.get();
  endpoint = std::make_unique<Endpoint>();
  endpoint->worker = this;
  endpoint->address = address;
  ucp_ep_params_t parameters{};
  parameters.field_mask =
      UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  parameters.address = reinterpret_cast<const ucp_address_t*>(UnwrapUcxAddress(address).data());
  parameters.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  parameters.err_handler.cb = &UcxWorker::OnError;
  parameters.err_handler.arg = endpoint.get();
  const ucs_status_t status = Ucx().ep_create(worker_, &parameters, &endpoint->handle);
  if (status != UCS_OK) {
    endpoint->handle = nullptr;
    endpoint->failed = true;
    endpoint->why = Ucx().status_string(status);
  }
  return endpoint.get();
}

void UcxWorker::OnError(void* endpoint, ucp_ep_h /*handle*/, ucs_status_t status) {
  auto* const lost = static_cast<Endpoint*>(endpoint);
  if (lost->failed) return;
  lost->failed = true;
  lost->why = Ucx().status_string(status);
}

/// Closes endpoints that failed, and tells the groups.
void UcxWorker::DropFailed() {
  while (true) {
    const auto found =
        std::find_if(endpoints_.begin(), endpoints_.end(), [](const auto& entry) { return entry.second->failed; });
    if (found == endpoints_.end()) return;
    const std::string address = found->first;
    const std::string why = found->second->why;
    Abandon(address);
    const auto groups = groups_;
    for (const auto& [id, receiver] : groups) receiver->Lost(address, why);
  }
}

void UcxWorker::Abandon(const std::string& address) {
  const auto entry = endpoints_.find(address);
  if (entry == endpoints_.end()) return;
  std::unique_ptr<Endpoint> endpoint = std::move(entry->second);
  endpoints_.erase(entry);
  endpoint->failed = true;  // what its error handler may say is known
  if (endpoint->handle == nullptr) return;
  ucp_request_param_t parameters{};
  parameters.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  parameters.flags = UCP_EP_CLOSE_FLAG_FORCE;
  void* const request = Ucx().ep_close(endpoint->handle, &parameters);
  closing_.push_back(std::move(endpoint));
  if (UCS_PTR_IS_PTR(request)) closes_.push_back(request);
}

}  // namespace runahead
