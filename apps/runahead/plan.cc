// `runahead plan`: what a prompt, or a trace of requests, would take on a described cluster.
#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "base/output_file.h"
#include "command.h"
#include "flags.h"
#include "output.h"
#include "plan/plan_table.h"
#include "plan_report.h"
#include "plan_trace.h"
#include "prefill/described_cluster.h"
#include "prefill/wire_costs.h"
#include "report/trace_events.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

struct PlanFlags {
  std::string file;
  std::string preset;
  std::string model;
  std::string contexts;
  std::string ranks;
  PartitionRequest partition;
  WireFormat wire = WireFormat::kExact;
  bool list = false;
  bool show = false;
  bool counters = false;
  bool json = false;
  std::string svg;
  std::string timeline;
  std::string trace_events;
  std::string trace;
  size_t kv_memory = size_t{40} << 30;  // bytes of each device's KV-cache
  double max_pause_ms = 200;
};

/// Throws ConfigError for a flag of plans, which are not made for a trace.
void CheckFlagsOfTrace(const PlanFlags& flags) {
  const std::pair<const char*, const std::string&> others[] = {{"--contexts", flags.contexts},
                                                               {"--ranks", flags.ranks},
                                                               {"--svg", flags.svg},
                                                               {"--timeline", flags.timeline},
                                                               {"--trace-events", flags.trace_events}};
  for (const auto& [flag, value] : others) {
    if (!value.empty()) throw ConfigError(fmt::format("{}: --trace plays no single plan, got '{}'", flag, value));
  }
}

int RunTrace(const PlanFlags& flags, const DescribedCluster& described) {
  ServingLimits limits;
  limits.pages = PagesOfMemory(described.shape, flags.kv_memory);
  limits.max_pause_s = flags.max_pause_ms * 1e-3;
  const ServingTable table = PlayTrace(described, flags.trace, limits);
  WriteOut(flags.json ? ToJson(table) : ToText(table));
  return 0;
}

DescribedCluster LoadCluster(const PlanFlags& flags) {
  if (!flags.file.empty()) return DescribeFile(flags.file, flags.model);
  return DescribePreset(flags.preset.empty() ? kUsualCluster : std::string_view(flags.preset), flags.model);
}

std::string ListPresets() {
  std::string text;
  for (const ClusterPreset& preset : ClusterPresets()) text += fmt::format("{}\n", preset.name);
  return text;
}

/// Throws ConfigError for what is no format of all links.
WireFormat ParseFormat(const std::string& text) {
  const std::optional<WireFormat> format = ParseWire(text);
  if (!format) throw ConfigError("--wire: a plan is made for one format, got 'auto'");
  return *format;
}

/// Has the rows of all strategies travel in `format`, whose first positions, which stay exact, are left out.
void EncodeBytes(PlanTable& table, WireFormat format, const WorkShape& shape) {
  table.wire = format;
  const double share = WireShare(format, shape);
  for (PlanRow& row : table.rows) {
    for (PlannedScheme& planned : row.schemes) {
      if (planned.scheme == Scheme::kTensorParallel) continue;
      planned.busiest_bytes = static_cast<size_t>(std::llround(static_cast<double>(planned.busiest_bytes) * share));
    }
  }
}

int RunPlan(const PlanFlags& flags) {
  if (flags.list) {
    WriteOut(ListPresets());
    return 0;
  }
  if (flags.show) {
    WriteOut(FindClusterPreset(flags.preset).toml);
    return 0;
  }
  if (!flags.trace.empty()) {
    CheckFlagsOfTrace(flags);
    return RunTrace(flags, LoadCluster(flags));
  }
  OutputFiles outputs;
  outputs.Protect(flags.file);
  outputs.Protect(flags.model);
  OutputFile svg = outputs.Open("--svg", flags.svg);
  OutputFile timeline = outputs.Open("--timeline", flags.timeline);
  OutputFile trace_events = outputs.Open("--trace-events", flags.trace_events);
  const auto [cluster, shape, costs] = LoadCluster(flags);
  const std::vector<int64_t> contexts =
      flags.contexts.empty() ? cluster.contexts : ParseIntegers("--contexts", flags.contexts, 1, kLongestPlanned);

  PlanTable table;
  table.model = cluster.model;
  table.dtype = cluster.dtype;
  table.cluster = cluster.origin;
  const ClusterCosts encoded = WithWire(costs, flags.wire, shape, 1);
  std::vector<int64_t> counts = UsualCounts(costs.ranks());
  if (!flags.ranks.empty()) counts = ParseIntegers("--ranks", flags.ranks, 1, costs.ranks());
  {
    Progress progress("planning");
    table.rows = FillPlanTable(shape, costs, encoded, contexts, counts, flags.partition,
                               [&](double share) { progress.Show(share); });
  }
  EncodeBytes(table, flags.wire, shape);
  if (flags.counters) table.counters = CountAll(shape, table.rows);
  WriteOut(flags.json ? ToJson(table) : ToText(table));
  if (svg || timeline || trace_events) {
    const PlanRow& row = table.rows.back();
    const PlannedScheme& best = row.schemes[row.best];
    const ClusterCosts& played_on = best.scheme == Scheme::kTensorParallel ? costs : encoded;
    const Simulation played =
        Simulate(shape, played_on.Select(row.members), best.scheme, best.partition, KeepTimeline::kYes);
    if (svg) svg.Write(ToSvg(table, played));
    if (timeline) timeline.Write(TimelineOf(table, played));
    if (trace_events) trace_events.Write(report::TraceEvents(played.timeline));
  }
  return 0;
}

CLI::Option* AddTraceFlags(CLI::App& command, const std::shared_ptr<PlanFlags>& flags) {
  constexpr double kShortestPause = 1;
  constexpr double kLongestPause = 1e9;
  auto* trace =
      command
          .add_option("--trace", flags->trace,
                      "Play these requests instead, one JSON object a line (at_ms, prompt_tokens, max_tokens; prefix "
                      "and prefix_tokens for a text that several begin with; priority), and compare three policies")
          ->type_name("FILE.jsonl");
  command
      .add_option_function<std::string>(
          "--kv-memory", [flags](const std::string& text) { flags->kv_memory = ParseBytes("--kv-memory", text); },
          "Memory of each device's KV-cache, as in 8GB or 512MiB [40GiB]")
      ->type_name("SIZE")
      ->needs(trace);
  AddNumber(command, "--max-pause", flags->max_pause_ms, kShortestPause, kLongestPause,
            fmt::format("Milliseconds that running answers wait at most for a step of another's prompt phase [{}]",
                        flags->max_pause_ms))
      ->type_name("MS")
      ->needs(trace);
  return trace;
}

}  // namespace

Action AddPlan(CLI::App& command) {
  auto flags = std::make_shared<PlanFlags>();
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
  auto* wire =
      command
          .add_option_function<std::string>(
              "--wire", [flags](const std::string& text) { flags->wire = ParseFormat(text); },
              "How rows travel: exact, int8, fp8 or int4, encoded and decoded by one CPU core of each rank [exact]")
          ->type_name("FORMAT");
  command
      .add_flag("--counters", flags->counters,
                "Add, per rank, the query-key dot products of one head and the K and V entries moved in a layer")
      ->excludes(wire);
  command.add_flag("--json", flags->json, "Print one JSON object instead of tables");
  command.add_option("--svg", flags->svg, "Draw speed-up by ranks, and the timeline of the last row's best strategy")
      ->type_name("FILE");
  command.add_option("--timeline", flags->timeline, "Draw that timeline alone")->type_name("FILE.svg");
  command.add_option("--trace-events", flags->trace_events, "Write it as trace events (for Perfetto)")
      ->type_name("FILE");
  AddTraceFlags(command, flags)->excludes(wire);
  return [flags] { return RunPlan(*flags); };
}

}  // namespace runahead::cli
