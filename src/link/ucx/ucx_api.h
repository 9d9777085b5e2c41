// UCX's functions, from its library, which programs are not linked with so that they start without it.
#pragma once

#include <ucp/api/ucp.h>

#include <string>

namespace runahead {

struct UcxApi {
  decltype(&ucp_init_version) init_version = nullptr;
  decltype(&ucp_cleanup) cleanup = nullptr;
  decltype(&ucp_context_query) context_query = nullptr;
  decltype(&ucp_config_read) config_read = nullptr;
  decltype(&ucp_config_modify) config_modify = nullptr;
  decltype(&ucp_config_release) config_release = nullptr;
  decltype(&ucp_worker_create) worker_create = nullptr;
  decltype(&ucp_worker_destroy) worker_destroy = nullptr;
  decltype(&ucp_worker_progress) worker_progress = nullptr;
  decltype(&ucp_worker_arm) worker_arm = nullptr;
  decltype(&ucp_worker_get_efd) worker_get_efd = nullptr;
  decltype(&ucp_worker_get_address) worker_get_address = nullptr;
  decltype(&ucp_worker_release_address) worker_release_address = nullptr;
  decltype(&ucp_worker_flush_nbx) worker_flush = nullptr;
  decltype(&ucp_worker_set_am_recv_handler) set_am_handler = nullptr;
  decltype(&ucp_ep_create) ep_create = nullptr;
  decltype(&ucp_ep_close_nbx) ep_close = nullptr;
  decltype(&ucp_am_send_nbx) am_send = nullptr;
  decltype(&ucp_am_recv_data_nbx) am_receive = nullptr;
  decltype(&ucp_am_data_release) am_release = nullptr;
  decltype(&ucp_request_free) request_free = nullptr;
  decltype(&ucp_request_check_status) request_status = nullptr;
  decltype(&ucp_mem_map) mem_map = nullptr;
  decltype(&ucp_mem_unmap) mem_unmap = nullptr;
  decltype(&ucs_status_string) status_string = nullptr;
};

/// Opens the library at the first call. Throws ConfigError where it is missing.
const UcxApi& Ucx();

/// Throws LinkError that says what failed and why, unless it did not.
void CheckUcx(ucs_status_t status, const char* what);

}  // namespace runahead
