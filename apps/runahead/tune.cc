// `runahead tune`: measures this machine's costs, searches for the best partitions, and checks what is predicted.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "base/output_file.h"
#include "command.h"
#include "experiment/check_predictions.h"
#include "flags.h"
#include "group_flags.h"
#include "model/model_loader.h"
#include "model_folder.h"
#include "ops/devices.h"
#include "output.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"
#include "tune/requests.h"
#include "tune/tuner.h"
#include "tune_report.h"

namespace runahead::cli {
namespace {

struct TuneFlags {
  std::string model;
  EngineOptions engine;
  GroupFlags group;
  bool profile = false;
  bool links = false;
  bool search = false;
  bool check = false;
  std::string contexts = "512,2048";
  std::string ranks;
  std::string topologies = TopologyNames();
  std::string partitions = "even,auto";
  int repeats = 12;
  std::string json;
};

std::vector<Topology> ParseTopologies(const std::string& text) {
  std::vector<Topology> topologies;
  for (const std::string& name : SplitList("--topologies", text)) topologies.push_back(ParseTopology(name));
  return topologies;
}

/// The numbers of ranks to search and check on.
std::vector<int64_t> RanksOf(const TuneFlags& flags, int64_t devices) {
  if (!flags.ranks.empty()) return ParseIntegers("--ranks", flags.ranks, 1, devices);
  std::vector<int64_t> ranks;
  for (int64_t count = 2; count <= devices; ++count) ranks.push_back(count);
  return ranks;
}

std::vector<std::string> PartitionsOf(const TuneFlags& flags, int64_t devices) {
  return SplitPartitions("--partitions", flags.partitions, RanksOf(flags, devices));
}

/// Returns what to tell of it.
std::string MeasureProfile(Tuner& tuner, const TuneFlags& flags, int64_t longest) {
  Progress progress("measuring costs");
  const auto show = [&](double share) { progress.Show(share); };
  const StoredProfile stored = flags.profile ? tuner.MeasureProfile(longest, flags.repeats, show)
                                             : tuner.MeasureLinks(longest, flags.repeats, show);
  return ToText(stored.profile) + fmt::format("cost profile: {}\n", stored.file.string());
}

/// Returns what to tell of it.
std::string Search(Tuner& tuner, const DecoderSpec& spec, const SearchPlan& plan) {
  Progress progress("searching partitions");
  double steps = 0;
  const double about = 12.0 * static_cast<double>(plan.contexts.size() * plan.ranks.size() * plan.topologies.size());
  const StoredSearches stored =
      tuner.Search(spec, plan, [&](int64_t, int) { progress.Show(std::min(1.0, ++steps / about)); });
  return ToText(stored.reports) + fmt::format("partition table: {}\n", stored.file.string());
}

int RunTune(TuneFlags& flags) {
  if (!flags.profile && !flags.links && !flags.search && !flags.check) flags.profile = flags.search = true;
  if (const std::optional<int> done = ServeFirstProcess(flags.model, flags.group, flags.engine)) return *done;
  OutputFiles outputs;
  outputs.Protect(flags.model);
  if (flags.profile || flags.links || flags.search)
    outputs.Protect(Tuner::FolderToStoreIn(flags.engine.tuned_folder));
  OutputFile json = outputs.Open("--json", flags.json);
  if (json && !flags.check) throw ConfigError("--json: writes what --check finds, which was not asked for");
  const Model model = OpenModel(flags.model, flags.engine);
  const DecoderSpec& spec = ConfigOf(model).spec();
  const std::vector<int64_t> contexts = ParseIntegers("--contexts", flags.contexts, 1, spec.max_positions);
  const std::vector<Topology> topologies = ParseTopologies(flags.topologies);
  const bool alone = flags.engine.group == nullptr;
  // What one process has is refused before the weights are loaded.
  if (alone) (void)PartitionsOf(flags, std::ssize(ParseDevices(flags.engine.devices)));
  const Engine engine = LoadEngine(model, flags.engine);
  const std::vector<int64_t> ranks = RanksOf(flags, engine.ranks());
  const std::vector<std::string> partitions = PartitionsOf(flags, engine.ranks());
  Tuner tuner(engine, flags.engine.tuned_folder);
  if (const std::string refused = tuner.Refused(); !refused.empty()) {
    if (!flags.profile && !flags.search) throw ConfigError(refused);
  }
  tuner.CheckFiles(flags.profile || flags.links, flags.search);
  const int64_t longest = *std::max_element(contexts.begin(), contexts.end());
  (void)engine.NewSession(longest);  // refuses what does not fit before anything is measured
  if (flags.profile || flags.links) WriteOut(MeasureProfile(tuner, flags, longest));
  if (flags.search) {
    SearchPlan plan;
    plan.contexts = contexts;
    plan.ranks = ranks;
    plan.topologies = topologies;
    plan.repeats = std::max(1, flags.repeats / 4);
    plan.decoded_tokens = UsualDecodedTokens(ParseDevices(flags.engine.devices).front().gpu.has_value());
    WriteOut(Search(tuner, spec, plan));
  }
  if (!flags.check) return 0;
  if (!tuner.HasProfile()) {
    throw ConfigError("--check: there is no cost profile of this model on these ranks; --profile measures it");
  }
  std::vector<Checked> checked;
  {
    Progress progress("checking predictions");
    checked = CheckPredictions(engine, spec, {contexts, ranks, topologies, partitions, flags.repeats},
                               [&](double share) { progress.Show(share); });
  }
  WriteOut(ToText(checked));
  if (json) json.Write(ToJson(checked));
  return 0;
}

}  // namespace

Action AddTune(CLI::App& command) {
  constexpr int kMostRepeats = 100000;
  auto flags = std::make_shared<TuneFlags>();
  flags->engine.devices = fmt::format("cpu:{}", std::clamp<size_t>(AvailableProcessors().size(), 2, 8));
  command.add_option("--model", flags->model, "A Hugging Face folder or GGUF file")->required()->type_name("DIR");
  AddEngineFlags(command, flags->engine);
  command.add_flag("--profile", flags->profile, "Measure the cost profile and store it");
  command.add_flag("--links", flags->links,
                   "Under a launcher: measure the links again, and keep what the cost profile says of the ranks");
  command.add_flag("--search", flags->search, "Search for the best partitions on the ranks and store their table");
  command.add_flag("--check", flags->check,
                   "Print predicted against measured TTFT [without any: --profile --search]");
  const auto list = [&](const char* flag, std::string& value, const std::string& help) {
    command.add_option(flag, value, fmt::format("{} [{}]", help, value.empty() ? "2 to all" : value))
        ->type_name("A,B,C");
  };
  list("--contexts", flags->contexts, "Tokens in the prompts; the longest bounds the profile");
  list("--ranks", flags->ranks, "Search and check on the first so many ranks");
  list("--topologies", flags->topologies, "Topologies of runahead");
  list("--partitions", flags->partitions, fmt::format("Partitions to check: {}", PartitionNames()));
  AddInteger(command, "--repeats", flags->repeats, 1, kMostRepeats,
             "Runs whose median counts; searches take a quarter for each candidate [12]");
  command.add_option("--json", flags->json, "Write what --check finds")->type_name("FILE");
  AddGroupFlags(command, flags->group);
  return [flags, &command] {
    UseOneRankEach(command, flags->engine);
    return RunTune(*flags);
  };
}

}  // namespace runahead::cli
