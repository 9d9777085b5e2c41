// `runahead plan`: what a prompt would take on a described cluster.
#include <fmt/format.h>

#include <memory>

#include "base/output_file.h"
#include "command.h"
#include "flags.h"
#include "output.h"
#include "plan/plan_table.h"
#include "plan_report.h"
#include "prefill/described_cluster.h"
#include "report/trace_events.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

struct Flags {
  std::string file;
  std::string preset;
  std::string model;
  std::string contexts;
  std::string ranks;
  PartitionRequest partition;
  bool list = false;
  bool show = false;
  bool counters = false;
  bool json = false;
  std::string svg;
  std::string timeline;
  std::string trace;
};

DescribedCluster LoadCluster(const Flags& flags) {
  if (!flags.file.empty()) return DescribeFile(flags.file, flags.model);
  return DescribePreset(flags.preset.empty() ? kUsualCluster : std::string_view(flags.preset), flags.model);
}

std::string ListPresets() {
  std::string text;
  for (const ClusterPreset& preset : ClusterPresets()) text += fmt::format("{}\n", preset.name);
  return text;
}

int Run(const Flags& flags) {
  if (flags.list) {
    WriteOut(ListPresets());
    return 0;
  }
  if (flags.show) {
    WriteOut(FindClusterPreset(flags.preset).toml);
    return 0;
  }
  OutputFiles outputs;
  outputs.Protect(flags.file);
  outputs.Protect(flags.model);
  OutputFile svg = outputs.Open("--svg", flags.svg);
  OutputFile timeline = outputs.Open("--timeline", flags.timeline);
  OutputFile trace = outputs.Open("--trace", flags.trace);
  const auto [cluster, shape, costs] = LoadCluster(flags);
  const std::vector<int64_t> contexts =
      flags.contexts.empty() ? cluster.contexts : ParseIntegers("--contexts", flags.contexts, 1, kLongestPlanned);

  PlanTable table;
  table.model = cluster.model;
  table.dtype = cluster.dtype;
  table.cluster = cluster.origin;
  std::vector<int64_t> counts = UsualCounts(costs.ranks());
  if (!flags.ranks.empty()) counts = ParseIntegers("--ranks", flags.ranks, 1, costs.ranks());
  {
    Progress progress("planning");
    table.rows =
        FillPlanTable(shape, costs, contexts, counts, flags.partition, [&](double share) { progress.Show(share); });
  }
  if (flags.counters) table.counters = CountAll(shape, table.rows);
  WriteOut(flags.json ? ToJson(table) : ToText(table));
  if (svg || timeline || trace) {
    const PlanRow& row = table.rows.back();
    const PlannedScheme& best = row.schemes[row.best];
    const Simulation played =
        Simulate(shape, costs.Select(row.members), best.scheme, best.partition, KeepTimeline::kYes);
    if (svg) svg.Write(ToSvg(table, played));
    if (timeline) timeline.Write(TimelineOf(table, played));
    if (trace) trace.Write(report::TraceEvents(played.timeline));
  }
  return 0;
}

}  // namespace

Action AddPlan(CLI::App& command) {
  auto flags = std::make_shared<Flags>();
  auto* file =
      command.add_option("CLUSTER", flags->file, "A description of a cluster (TOML)")->type_name("FILE.toml");
  auto* preset = command.add_option("--preset", flags->preset, "A cluster that is known by name [8xh100-nvlink]")
                     ->type_name("NAME")
                     ->excludes(file);
  command.add_flag("--list-presets", flags->list, "Print the names of the known clusters");
  command.add_flag("--show-preset", flags->show, "Print the description of --preset, to start one's own from")
      ->needs(preset);
  command.add_option("--model", flags->model, "A preset of make-model, or a folder [the description's]")
      ->type_name("NAME|DIR");
  command.add_option("--contexts", flags->contexts, "Tokens in the prompts [the description's]")->type_name("A,B,C");
  command.add_option("--ranks", flags->ranks, "Use the so many fastest devices [1, 2, ... to all]")
      ->type_name("A,B,C");
  command
      .add_option_function<std::string>(
          "--partition", [flags](const std::string& text) { flags->partition = PartitionRequest::Parse(text); },
          "Where runahead cuts the prompt: auto (searched on the simulator), even, or fractions [auto]")
      ->type_name("NAME|FRACTIONS");
  command.add_flag("--counters", flags->counters,
                   "Add, per rank, the query-key dot products of one head and the K and V entries moved in a layer");
  command.add_flag("--json", flags->json, "Print one JSON object instead of tables");
  command.add_option("--svg", flags->svg, "Draw speed-up by ranks, and the timeline of the last row's best strategy")
      ->type_name("FILE");
  command.add_option("--timeline", flags->timeline, "Draw that timeline alone")->type_name("FILE.svg");
  command.add_option("--trace", flags->trace, "Write it as trace events (for Perfetto)")->type_name("FILE");
  return [flags] { return Run(*flags); };
}

}  // namespace runahead::cli
