// What a prompt phase and a generation tell.
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <sstream>

#include "bindings.h"
#include "runahead/engine.h"
#include "runahead/generate.h"
#include "runahead/timeline.h"

namespace runahead::python {
namespace {

std::string Repr(const PrefillReport& report) {
  std::ostringstream text;
  text << "<PrefillReport: " << report.cuts.back() << " tokens on " << report.ranks() << " ranks in "
       << report.ttft_ms << " ms>";
  return text.str();
}

}  // namespace

void BindReports(nb::module_& module) {
  nb::class_<TimelineEvent>(module, "TimelineEvent", "One stretch of one rank's time in a prompt phase.")
      .def_ro("rank", &TimelineEvent::rank)
      .def_ro("layer", &TimelineEvent::layer)
      .def_prop_ro(
          "activity", [](const TimelineEvent& self) { return Name(self.activity); },
          "\"compute\", \"wait\", \"send\" or \"receive\"")
      .def_ro("begin_ms", &TimelineEvent::begin_ms, "since the prompt phase began, ms")
      .def_ro("end_ms", &TimelineEvent::end_ms, "since the prompt phase began, ms")
      .def_ro("bytes", &TimelineEvent::bytes, "waited for or moved")
      .def_ro("peer", &TimelineEvent::peer, "the other rank of a send or a receive; -1: none or several");

  nb::class_<PrefillReport>(module, "PrefillReport", "One finished prompt phase.")
      .def_prop_ro("strategy", [](const PrefillReport& self) { return Name(self.strategy); })
      .def_prop_ro("topology", [](const PrefillReport& self) { return Name(self.topology); })
      .def_prop_ro("partition", [](const PrefillReport& self) { return Name(self.partition_kind); })
      .def_ro("cuts", &PrefillReport::cuts, "[ranks + 1], tokens")
      .def_ro("members", &PrefillReport::members, "[ranks], ranks of the engine, one for each chunk")
      .def_ro("plan", &PrefillReport::plan, "the reason for these ranks and cuts")
      .def_ro("predicted_ms", &PrefillReport::predicted_ms, "predicted TTFT, ms; 0: nothing was measured")
      .def_ro("ttft_ms", &PrefillReport::ttft_ms, "from the call to the logits in host memory, ms")
      .def_ro("timeline", &PrefillReport::timeline, "empty unless asked for")
      .def_prop_ro("ranks", &PrefillReport::ranks)
      .def("__repr__", &Repr);

  nb::class_<Generation>(module, "Generation", "An answer and how long it took.")
      .def_ro("prefill", &Generation::prefill)
      .def_ro("ids", &Generation::ids, "new tokens only")
      .def_ro("text", &Generation::text, "of `ids`; empty without a tokenizer")
      .def_prop_ro(
          "finish", [](const Generation& self) { return Name(self.finish); }, "\"length\", \"eos\" or \"stop\"")
      .def_ro("tpot_ms", &Generation::tpot_ms, "mean time per token after the first, ms");
}

}  // namespace runahead::python
