#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "runahead/version.h"

NB_MODULE(_runahead, module) {
  namespace nb = nanobind;
  using runahead::BuildInfo;
  module.doc() = "Runahead's engine, tokenizer and planner.";

  nb::class_<BuildInfo>(module, "BuildInfo", "What this build of the library is.")
      .def_ro("version", &BuildInfo::version)
      .def_ro("commit", &BuildInfo::commit, "12 digits of git's, \"-dirty\" behind; empty: not known")
      .def_ro("parts", &BuildInfo::parts, "\"cpu\", and what it was built with: \"cuda\", \"nccl\"")
      .def_ro("cpu_features", &BuildInfo::cpu_features, "vector and matrix instructions of this machine")
      .def_ro("native_bf16", &BuildInfo::native_bf16, "whether bf16 weights compute in bf16 on this processor");
  module.def("build_info", &runahead::DescribeBuild, "What was built, and what of it this machine can use.");

  runahead::python::BindErrors(module);
  runahead::python::BindReports(module);
  runahead::python::BindTokenizer(module);
  runahead::python::BindEngine(module);
  runahead::python::BindPlanner(module);
}
