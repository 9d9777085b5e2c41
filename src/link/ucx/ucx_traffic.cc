// What a port sends, and what it does with what arrives.
#include <algorithm>
#include <cstring>

#include "link/ucx/ucx_worker.h"

namespace runahead {
namespace {

constexpr size_t kMostEarly = 4096;
constexpr size_t kMostEnded = 1024;

}  // namespace

struct UcxWorker::Operation {
  UcxWorker* worker = nullptr;
  UcxHeader header;
  std::string text;
  Done done;                              // of what is sent; none: nobody waits
  std::shared_ptr<UcxReceiver> receiver;  // of what is received
};

void UcxWorker::OnSent(void* request, ucs_status_t status, void* operation) {
  const std::unique_ptr<Operation> ended(static_cast<Operation*>(operation));
  if (ended->done) ended->done(status == UCS_OK ? nullptr : Ucx().status_string(status));
  Ucx().request_free(request);
}

void UcxWorker::SendMessage(const std::string& address, const UcxHeader& header, std::string text) {
  text.resize(std::min(text.size(), kMostUcxText));
  Endpoint* const endpoint = EndpointTo(address);
  if (endpoint->failed) return;
  auto operation = std::make_unique<Operation>();
  operation->header = header;
  operation->text = std::move(text);
  ucp_request_param_t parameters{};
  parameters.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  parameters.cb.send = &UcxWorker::OnSent;
  parameters.user_data = operation.get();
  parameters.flags = UCP_AM_SEND_FLAG_EAGER;
  const std::string& sent = operation->text;
  void* const request = Ucx().am_send(endpoint->handle, kUcxMessage, &operation->header, sizeof(UcxHeader),
                                      sent.data(), sent.size(), &parameters);
  if (UCS_PTR_IS_PTR(request)) {
    (void)operation.release();
  } else if (UCS_PTR_IS_ERR(request)) {
    OnError(endpoint, nullptr, UCS_PTR_STATUS(request));
  }
}

void UcxWorker::SendRows(const std::string& address, const UcxHeader& header, UcxMemory rows, size_t bytes,
                         Done done) {
  Endpoint* const endpoint = EndpointTo(address);
  if (endpoint->failed) return done(endpoint->why.c_str());
  auto operation = std::make_unique<Operation>();
  operation->header = header;
  operation->done = std::move(done);
  ucp_request_param_t parameters{};
  parameters.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS |
                            UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  parameters.cb.send = &UcxWorker::OnSent;
  parameters.user_data = operation.get();
  parameters.memory_type = rows.type;
  parameters.flags = bytes >= kUcxZeroCopyBytes ? UCP_AM_SEND_FLAG_RNDV : UCP_AM_SEND_FLAG_EAGER;
  if (ucp_mem_h const handle = HandleOf(rows.data, bytes); handle != nullptr) {
    parameters.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
    parameters.memh = handle;
  }
  void* const request = Ucx().am_send(endpoint->handle, kUcxMessage, &operation->header, sizeof(UcxHeader), rows.data,
                                      bytes, &parameters);
  if (UCS_PTR_IS_PTR(request)) {
    (void)operation.release();
    return;
  }
  const bool failed = UCS_PTR_IS_ERR(request);
  if (failed) OnError(endpoint, nullptr, UCS_PTR_STATUS(request));
  operation->done(failed ? endpoint->why.c_str() : nullptr);
}

ucs_status_t UcxWorker::OnMessage(void* worker, const void* header, size_t header_bytes, void* data, size_t bytes,
                                  const ucp_am_recv_param_t* parameters) {
  const bool later = (parameters->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  const auto read = ReadUcxHeader({static_cast<const char*>(header), header_bytes});
  if (!read.has_value()) return later ? UCS_ERR_REJECTED : UCS_OK;
  return static_cast<UcxWorker*>(worker)->Accept(*read, data, bytes, later);
}

/// What came for a group: rows, which `later` means are still with their sender, or a message.
ucs_status_t UcxWorker::Accept(const UcxHeader& header, void* data, size_t bytes, bool later) {
  const auto found = groups_.find(header.group);
  if (header.kind != UcxHeader::Kind::kRows) {
    if (later || bytes > kMostUcxText) return later ? UCS_ERR_REJECTED : UCS_OK;
    const std::string_view text(static_cast<const char*>(data), bytes);
    if (found == groups_.end()) {
      Keep(header, text);
    } else {
      const std::shared_ptr<UcxReceiver> receiver = found->second;
      receiver->Meet(header, text);
    }
    return UCS_OK;
  }
  if (later) {
    if (found == groups_.end()) return UCS_ERR_REJECTED;
    landings_.push_back({header, data, bytes});
    return UCS_INPROGRESS;
  }
  if (found == groups_.end()) return UCS_OK;
  const std::shared_ptr<UcxReceiver> receiver = found->second;
  const UcxMemory to = receiver->Land(header, bytes);
  if (to.data == nullptr) return UCS_OK;
  if (bytes > 0 && to.type != UCS_MEMORY_TYPE_HOST) {
    receiver->Landed(header, "rows for a GPU came in a message");
    return UCS_OK;
  }
  if (bytes > 0) std::memcpy(to.data, data, bytes);
  receiver->Landed(header, nullptr);
  return UCS_OK;
}

/// Keeps a message for a group that is not known yet, unless it is over.
void UcxWorker::Keep(const UcxHeader& header, std::string_view text) {
  if (std::find(ended_.begin(), ended_.end(), header.group) != ended_.end()) return;
  if (early_.size() == kMostEarly) early_.pop_front();
  early_.push_back({header, std::string(text)});
}

void UcxWorker::StartLandings() {
  std::vector<Landing> landings;
  landings.swap(landings_);
  for (const Landing& landing : landings) Receive(landing);
}

void UcxWorker::Receive(const Landing& landing) {
  const auto found = groups_.find(landing.header.group);
  const UcxMemory to = found == groups_.end() ? UcxMemory{} : found->second->Land(landing.header, landing.bytes);
  if (to.data == nullptr) return Ucx().am_release(worker_, landing.descriptor);
  auto operation = std::make_unique<Operation>();
  operation->header = landing.header;
  operation->receiver = found->second;
  ucp_request_param_t parameters{};
  parameters.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  parameters.cb.recv_am = &UcxWorker::OnLanded;
  parameters.user_data = operation.get();
  parameters.memory_type = to.type;
  if (ucp_mem_h const handle = HandleOf(to.data, landing.bytes); handle != nullptr) {
    parameters.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
    parameters.memh = handle;
  }
  void* const request = Ucx().am_receive(worker_, landing.descriptor, to.data, landing.bytes, &parameters);
  if (UCS_PTR_IS_PTR(request)) {
    (void)operation.release();
    return;
  }
  operation->receiver->Landed(landing.header,
                              UCS_PTR_IS_ERR(request) ? Ucx().status_string(UCS_PTR_STATUS(request)) : nullptr);
}

void UcxWorker::OnLanded(void* request, ucs_status_t status, size_t /*bytes*/, void* operation) {
  const std::unique_ptr<Operation> ended(static_cast<Operation*>(operation));
  ended->receiver->Landed(ended->header, status == UCS_OK ? nullptr : Ucx().status_string(status));
  Ucx().request_free(request);
}

void UcxWorker::Attach(uint64_t group, std::shared_ptr<UcxReceiver> receiver) {
  groups_[group] = receiver;
  std::deque<Early> others;
  std::deque<Early> early;
  early.swap(early_);
  for (Early& message : early) {
    if (message.header.group == group) {
      receiver->Meet(message.header, message.text);
    } else {
      others.push_back(std::move(message));
    }
  }
  early_.swap(others);
}

void UcxWorker::Detach(uint64_t group) {
  groups_.erase(group);
  if (ended_.size() == kMostEnded) ended_.pop_front();
  ended_.push_back(group);
}

}  // namespace runahead
