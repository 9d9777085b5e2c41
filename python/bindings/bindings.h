// The parts of the module `runahead._runahead`, which shows the public API of include/runahead and nothing else of
// the library.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runahead/options.h"

namespace runahead::python {

namespace nb = nanobind;

// Each adds its classes to `module`, in this order.
void BindErrors(nb::module_& module);
void BindReports(nb::module_& module);
void BindTokenizer(nb::module_& module);
void BindEngine(nb::module_& module);
void BindPlanner(nb::module_& module);

/// Token ids from a list or another iterable of integers, or from an array of integers with one dimension. Throws
/// TypeError for anything else, and ConfigError naming an id and its position that does not fit 32 bits.
std::vector<int32_t> TokenIds(nb::handle ids);

/// "auto", "even", "searched", "predicted", "5,4,3", or a list of positive numbers.
PartitionRequest ToPartition(nb::handle partition);

/// Runs `work` while other threads of Python may run.
template <typename Work>
auto WithoutGil(Work&& work) {
  const nb::gil_scoped_release release;
  return std::forward<Work>(work)();
}

}  // namespace runahead::python
