// The library's exceptions as classes of Python: the same names, the same inheritance, the same line of text.
#include "bindings.h"
#include "runahead/error.h"

namespace runahead::python {
namespace {

template <typename T>
nb::object Bind(nb::module_& module, const char* name, nb::handle base, const char* doc) {
  nb::exception<T> error(module, name, base);
  nb::setattr(error, "__doc__", nb::str(doc));
  return error;
}

}  // namespace

void BindErrors(nb::module_& module) {
  const nb::object error =
      Bind<Error>(module, "Error", PyExc_Exception,
                  "Base of every exception of the library: one line that names the thing and the offending value.");
  Bind<ConfigError>(module, "ConfigError", error,
                    "A value that cannot be used: in a model's files, an option or a request.");
  Bind<RefusedError>(module, "RefusedError", error,
                     "A request that an engine does not take now, though nothing is wrong with it.");
  Bind<IoError>(module, "IoError", error,
                "A file that cannot be opened, read, mapped or written, or that ends too early.");
  Bind<DeviceError>(module, "DeviceError", error,
                    "A device (a GPU, a set of CPU threads) that is missing or failed.");
  Bind<LinkError>(module, "LinkError", error,
                  "A rank or a link that was lost, or did not answer before its deadline.");
}

}  // namespace runahead::python
