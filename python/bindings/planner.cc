// Planner, and what it predicts.
#include "runahead/planner.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"

namespace runahead::python {
namespace {

void BindPredictions(nb::module_& module) {
  nb::class_<PlannedStrategy>(module, "PlannedStrategy", "One way to spread a prompt, as the simulator sees it.")
      .def_ro("scheme", &PlannedStrategy::scheme,
              "\"single\", \"runahead chain\", \"runahead direct\", \"tsp\", \"tsp-causal\" or \"tp\"")
      .def_ro("cuts", &PlannedStrategy::cuts, "[ranks + 1], tokens")
      .def_ro("ttft_ms", &PlannedStrategy::ttft_ms, "predicted TTFT, ms")
      .def_ro("busiest_link_bytes", &PlannedStrategy::busiest_link_bytes);
  nb::class_<PromptPlan>(module, "PromptPlan", "All that a prompt could do with one number of devices.")
      .def_ro("context", &PromptPlan::context, "tokens of the prompt")
      .def_ro("devices", &PromptPlan::devices, "[ranks], by their places in the description")
      .def_ro("left_out", &PromptPlan::left_out, "devices that the best strategy is faster without")
      .def_ro("strategies", &PromptPlan::strategies)
      .def_prop_ro("best", &PromptPlan::Best, nb::rv_policy::reference_internal, "the fastest of `strategies`")
      .def_ro("single_ms", &PromptPlan::single_ms, "TTFT of the fastest device alone, ms")
      .def_prop_ro("ranks", [](const PromptPlan& self) { return self.devices.size(); })
      .def_prop_ro("speed_up", &PromptPlan::SpeedUp);
  nb::class_<SimulatedPrompt>(module, "SimulatedPrompt", "One prompt phase as the simulator played it.")
      .def_ro("ttft_ms", &SimulatedPrompt::ttft_ms, "ms")
      .def_ro("compute_ms", &SimulatedPrompt::compute_ms, "[ranks], ms")
      .def_ro("busiest_link_bytes", &SimulatedPrompt::busiest_link_bytes)
      .def_ro("timeline", &SimulatedPrompt::timeline, "empty unless asked for");
}

}  // namespace

using nb::literals::operator""_a;

void BindPlanner(nb::module_& module) {
  BindPredictions(module);
  nb::class_<Planner>(module, "Planner", "A described cluster and the model that runs on it. Immutable.")
      .def(
          "__init__",
          [](Planner* self, const std::string& cluster, const std::string& model) {
            new (self) Planner(Planner::Load(cluster, model));
          },
          "cluster"_a = "8xh100-nvlink", "model"_a = "",
          "`cluster`: a name of known_clusters(), or the path of a description in TOML. `model`: a name of "
          "known_models(), or a model's folder; empty: the description's.")
      .def_static(
          "parse",
          [](const std::string& toml, const std::string& model, const std::filesystem::path& folder) {
            return Planner::Parse(toml, model, folder);
          },
          "toml"_a, "model"_a = "", "folder"_a = "",
          "The description itself. Cost profiles that it names are relative to `folder`.")
      .def_static("known_clusters", &Planner::KnownClusters)
      .def_static("known_models", &Planner::KnownModels)
      .def_static("description", &Planner::Description, "cluster"_a, "A known cluster as TOML.")
      .def_prop_ro("device_names", &Planner::device_names)
      .def_prop_ro("model", [](const Planner& self) { return self.model(); })
      .def_prop_ro("dtype", [](const Planner& self) { return self.dtype(); })
      .def_prop_ro("contexts", [](const Planner& self) { return self.contexts(); })
      .def(
          "plan",
          [](const Planner& self, std::vector<int64_t> contexts, std::vector<int64_t> ranks, nb::handle partition) {
            const PlanOptions options{std::move(contexts), std::move(ranks), ToPartition(partition)};
            return WithoutGil([&] { return self.Plan(options); });
          },
          "contexts"_a = nb::list(), "ranks"_a = nb::list(), "partition"_a = "auto",
          nb::sig("def plan(self, contexts: Sequence[int] = [], ranks: Sequence[int] = [], "
                  "partition: Partition = 'auto') -> list[PromptPlan]"),
          "A plan for each context (tokens) and each number of the fastest devices, contexts first. Empty: the "
          "description's contexts; 1 to 8 devices, powers of two, and all.")
      .def(
          "simulate",
          [](const Planner& self, const std::string& scheme, std::vector<int64_t> cuts, std::vector<int> devices,
             bool timeline) {
            return WithoutGil([&] { return self.Simulate(scheme, std::move(cuts), std::move(devices), timeline); });
          },
          "scheme"_a, "cuts"_a, "devices"_a = nb::list(), "timeline"_a = false,
          "Plays a prompt phase. `cuts`: [ranks + 1], from 0 to the tokens. `devices`: one for each rank; empty: the "
          "fastest ones.");
}

}  // namespace runahead::python
