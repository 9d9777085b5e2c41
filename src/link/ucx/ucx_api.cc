#include "link/ucx/ucx_api.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <type_traits>

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
  void* const library = ::dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw ConfigError(fmt::format("ranks in several processes: UCX cannot be opened (libucx0): {}", ::dlerror()));
  }
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
    if (function == nullptr) throw ConfigError(fmt::format("ranks in several processes: UCX has no {}", name));
  };
  UcxApi ucx;
  find("ucp_init_version", ucx.init_version);
  find("ucp_cleanup", ucx.cleanup);
  find("ucp_config_read", ucx.config_read);
  find("ucp_config_modify", ucx.config_modify);
  find("ucp_config_release", ucx.config_release);
  find("ucp_worker_create", ucx.worker_create);
  find("ucp_worker_destroy", ucx.worker_destroy);
  find("ucp_worker_progress", ucx.worker_progress);
  find("ucp_worker_arm", ucx.worker_arm);
  find("ucp_worker_get_efd", ucx.worker_get_efd);
  find("ucp_worker_get_address", ucx.worker_get_address);
  find("ucp_worker_release_address", ucx.worker_release_address);
  find("ucp_worker_flush_nbx", ucx.worker_flush);
  find("ucp_worker_set_am_recv_handler", ucx.set_am_handler);
  find("ucp_ep_create", ucx.ep_create);
  find("ucp_ep_close_nbx", ucx.ep_close);
  find("ucp_am_send_nbx", ucx.am_send);
  find("ucp_am_recv_data_nbx", ucx.am_receive);
  find("ucp_am_data_release", ucx.am_release);
  find("ucp_request_free", ucx.request_free);
  find("ucp_request_check_status", ucx.request_status);
  find("ucp_mem_map", ucx.mem_map);
  find("ucp_mem_unmap", ucx.mem_unmap);
  find("ucs_status_string", ucx.status_string);
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
