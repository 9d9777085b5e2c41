#include "base/shared_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <utility>

#include "runahead/error.h"

namespace runahead {

SharedLibrary::SharedLibrary(const char* file, std::string purpose, std::string name, const std::string& package)
    : purpose_(std::move(purpose)), name_(std::move(name)), handle_(::dlopen(file, RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ != nullptr) return;
  throw ConfigError(fmt::format("{}: {} cannot be opened{}: {}", purpose_, name_,
                                package.empty() ? "" : fmt::format(" ({})", package), ::dlerror()));
}

void* SharedLibrary::Address(const char* name) const {
  void* const address = ::dlsym(handle_, name);
  if (address == nullptr) throw ConfigError(fmt::format("{}: {} has no {}", purpose_, name_, name));
  return address;
}

}  // namespace runahead
