#include "link/ucx/ucx_api.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/shared_library.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// What UCX reads from the environment when it is loaded: ours where the user's names nothing.
void Configure() {
  const auto set = [](const char* name, const char* value) { (void)::setenv(name, value, /*overwrite=*/0); };
  set("UCX_HANDLE_ERRORS", "none");  // no handlers of signals
  set("UCX_LOG_LEVEL", "fatal");     // nothing on stdout
  set("UCX_MEM_EVENTS", "n");  // libc's functions stay as they are: pools are registered once, nothing is looked up
  set("UCX_WARN_UNUSED_ENV_VARS", "n");
  set("UCX_KEEPALIVE_INTERVAL", "1s");
  // Shared memory is not taken between processes that must notice each other's end, unless it says that it does.
  set("UCX_POSIX_ERROR_HANDLING", "y");
  set("UCX_SYSV_ERROR_HANDLING", "y");
}

UcxApi OpenUcx() {
  Configure();
  const SharedLibrary library("libucp.so.0", "ranks in several processes", "UCX", "libucx0");
  UcxApi ucx;
  library.Find("ucp_init_version", ucx.init_version);
  library.Find("ucp_cleanup", ucx.cleanup);
  library.Find("ucp_context_query", ucx.context_query);
  library.Find("ucp_config_read", ucx.config_read);
  library.Find("ucp_config_modify", ucx.config_modify);
  library.Find("ucp_config_release", ucx.config_release);
  library.Find("ucp_worker_create", ucx.worker_create);
  library.Find("ucp_worker_destroy", ucx.worker_destroy);
  library.Find("ucp_worker_progress", ucx.worker_progress);
  library.Find("ucp_worker_arm", ucx.worker_arm);
  library.Find("ucp_worker_get_efd", ucx.worker_get_efd);
  library.Find("ucp_worker_get_address", ucx.worker_get_address);
  library.Find("ucp_worker_release_address", ucx.worker_release_address);
  library.Find("ucp_worker_flush_nbx", ucx.worker_flush);
  library.Find("ucp_worker_set_am_recv_handler", ucx.set_am_handler);
  library.Find("ucp_ep_create", ucx.ep_create);
  library.Find("ucp_ep_close_nbx", ucx.ep_close);
  library.Find("ucp_am_send_nbx", ucx.am_send);
  library.Find("ucp_am_recv_data_nbx", ucx.am_receive);
  library.Find("ucp_am_data_release", ucx.am_release);
  library.Find("ucp_request_free", ucx.request_free);
  library.Find("ucp_request_check_status", ucx.request_status);
  library.Find("ucp_mem_map", ucx.mem_map);
  library.Find("ucp_mem_unmap", ucx.mem_unmap);
  library.Find("ucs_status_string", ucx.status_string);
  return ucx;
}

}  // namespace

const UcxApi& Ucx() {
  static const UcxApi ucx = OpenUcx();
  return ucx;
}

void CheckUcx(ucs_status_t status, const char* what) {
  if (status != UCS_OK) throw LinkError(fmt::format("UCX: {} failed: {}", what, Ucx().status_string(status)));
}

}  // namespace runahead
