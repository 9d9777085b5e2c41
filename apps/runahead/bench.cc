// `runahead bench`: the time to the first token of every way to prefill, against one rank and the matmul ceiling.
#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <set>

#include "base/deadline.h"
#include "base/output_file.h"
#include "bench_report.h"
#include "bench_suite.h"
#include "command.h"
#include "experiment/bench_run.h"
#include "flags.h"
#include "gpu_report.h"
#include "group_flags.h"
#include "model/model_loader.h"
#include "model_folder.h"
#include "output.h"
#include "report/trace_events.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"
#include "tune/requests.h"

namespace runahead::cli {
namespace {

struct BenchFlags {
  std::vector<std::string> models;
  EngineOptions engine;
  std::string contexts = "512,1024,2048";
  std::string strategies = StrategyNames();
  std::string topologies = std::string(Name(Topology::kChain));
  std::vector<std::string> partitions = {std::string(Name(PartitionKind::kAuto))};
  std::string ranks;
  BenchPlan plan;
  std::optional<int> decoded_tokens;
  std::string json;
  std::string svg;
  std::string timeline;
  std::string trace;
  SuiteFlags suite;
  GroupFlags group;
  bool contexts_given = false;
};

/// Every combination that differs from the others, the single rank first. Fractions go with as many ranks.
std::vector<Combination> Combine(const BenchFlags& flags, const std::vector<int64_t>& ranks) {
  std::vector<Combination> all = {{{Strategy::kSingle, Topology::kChain, {}, 1, false}, ""}};
  std::vector<std::string> partitions;
  for (const std::string& text : flags.partitions) {
    for (std::string& name : SplitPartitions("--partitions", text, ranks)) partitions.push_back(std::move(name));
  }
  const std::vector<std::string> topologies = SplitList("--topologies", flags.topologies);
  for (const std::string& name : SplitList("--strategies", flags.strategies)) {
    const Strategy strategy = ParseStrategy(name);
    for (const int64_t count : ranks) {
      const int used = static_cast<int>(count);
      if (strategy == Strategy::kSingle || used == 1) continue;
      if (strategy != Strategy::kRunahead) {
        all.push_back({{strategy, Topology::kDirect, {}, used, false}, ""});
        continue;
      }
      for (const std::string& topology : topologies) {
        for (const std::string& name_of_cuts : partitions) {
          const PartitionRequest partition = PartitionRequest::Parse(name_of_cuts);
          const bool fits = partition.fractions.empty() || partition.fractions.size() == static_cast<size_t>(used);
          const PrefillOptions options{strategy, ParseTopology(topology), partition, used, false};
          if (fits) all.push_back({options, name_of_cuts});
        }
      }
    }
  }
  return all;
}

std::vector<MatmulCeiling> MeasureCeilings(const BenchPlan& plan, const std::vector<RankDevice>& devices, int threads,
                                           DType compute) {
  std::set<int> counts;  // ranks of other processes have their ceilings elsewhere
  for (const Combination& combination : plan.combinations) {
    if (combination.options.ranks <= std::ssize(devices)) counts.insert(combination.options.ranks);
  }
  std::vector<MatmulCeiling> ceilings;
  for (const int ranks : counts) {
    ceilings.push_back(
        MeasureMatmulCeiling({devices.begin(), devices.begin() + ranks}, threads, compute, plan.repeats));
  }
  return ceilings;
}

/// The longest prompt's operations, and decoding behind each prompt of one rank.
GpuReport MeasureGpu(const Engine& engine, const BenchReport& report, const BenchPlan& plan,
                     const RankDevice& device) {
  GpuReport gpu;
  gpu.matmul_rate = report.ceilings.front().Best();
  gpu.copy_rate = MeasureCopyRate(device);
  gpu.breakdown_context = *std::max_element(plan.contexts.begin(), plan.contexts.end());
  gpu.breakdown = MeasureOps(engine, gpu.breakdown_context);
  for (const Measurement& measurement : report.measurements) {
    if (measurement.combination.options.ranks != 1 || measurement.token_ms.empty()) continue;
    gpu.decoding.push_back(DecodingOf(measurement, engine.facts()));
  }
  return gpu;
}

/// Throws ConfigError for a context beyond the model's.
void CheckContexts(const std::vector<int64_t>& contexts, int64_t longest) {
  for (const int64_t context : contexts) {
    if (context > longest) {
      throw ConfigError(
          fmt::format("--contexts: {} tokens are more than the model's context of {}", context, longest));
    }
  }
}

/// The numbers of ranks to run on. Throws ConfigError for more than there are devices.
std::vector<int64_t> RanksOf(const BenchFlags& flags, int64_t devices) {
  if (flags.ranks.empty()) return {devices};
  std::vector<int64_t> ranks = ParseIntegers("--ranks", flags.ranks, 1, kMostRanks);
  for (const int64_t count : ranks) {
    if (count > devices) {
      throw ConfigError(fmt::format("--ranks: {} are more than the {} of --devices", count, devices));
    }
  }
  return ranks;
}

int DecodedTokens(const BenchFlags& flags) {
  return flags.decoded_tokens.value_or(
      UsualDecodedTokens(ParseDevices(flags.engine.devices).front().gpu.has_value()));
}

/// Throws ConfigError for none, and for several without a suite.
void CheckModels(const BenchFlags& flags) {
  if (flags.models.empty() && flags.suite.from.empty()) throw ConfigError("--model: a folder is needed");
  if (flags.models.size() > 1 && flags.suite.name.empty()) {
    throw ConfigError(fmt::format("--model: several only with --suite, got '{}' too", flags.models[1]));
  }
}

SuiteRequest RequestOf(const BenchFlags& flags) {
  return {flags.models,
          flags.engine,
          flags.contexts_given ? flags.contexts : "",
          flags.ranks,
          flags.plan.repeats,
          flags.plan.warmup,
          DecodedTokens(flags),
          flags.plan.seed,
          flags.json,
          {{"--svg", flags.svg}, {"--timeline", flags.timeline}, {"--trace", flags.trace}}};
}

int RunBench(BenchFlags& flags) {
  CheckModels(flags);
  if (!flags.suite.name.empty() || !flags.suite.from.empty()) {
    RefuseGroup();
    return RunSuite(flags.suite, RequestOf(flags));
  }
  if (!flags.suite.plots.empty()) {
    throw ConfigError(
        fmt::format("--plots: a suite draws them, which was not asked for, got '{}'", flags.suite.plots));
  }
  const std::string& folder = flags.models.front();
  if (const std::optional<int> done = ServeFirstProcess(folder, flags.group, flags.engine)) return *done;
  const bool alone = flags.engine.group == nullptr;
  OutputFiles outputs;
  outputs.Protect(folder);
  OutputFile json = outputs.Open("--json", flags.json);
  OutputFile svg = outputs.Open("--svg", flags.svg);
  OutputFile timeline = outputs.Open("--timeline", flags.timeline);
  OutputFile trace = outputs.Open("--trace", flags.trace);
  BenchPlan& plan = flags.plan;
  plan.contexts = ParseIntegers("--contexts", flags.contexts, 1, INT32_MAX);
  const Model model = OpenModel(folder, flags.engine);
  const DecoderSpec& spec = ConfigOf(model).spec();
  CheckContexts(plan.contexts, spec.max_positions);
  const std::vector<RankDevice> devices = ParseDevices(flags.engine.devices);
  if (alone) plan.combinations = Combine(flags, RanksOf(flags, std::ssize(devices)));
  plan.decoded_tokens = DecodedTokens(flags);

  const auto load_begin = Clock::now();
  const Engine engine = LoadEngine(model, flags.engine);
  const double load_s = std::chrono::duration<double>(Clock::now() - load_begin).count();
  if (!alone) plan.combinations = Combine(flags, RanksOf(flags, engine.ranks()));
  CheckPlans(engine, plan);
  const DType compute = ParseDType(engine.facts().dtype).value_or(DType::kF32);

  BenchReport report{folder,
                     engine.facts().dtype,
                     engine.facts().weights,
                     engine.threads_per_rank(),
                     AllowedDifference(spec, compute, flags.engine.wire),
                     DescribeMachine(),
                     engine.devices().front(),
                     load_s,
                     {},
                     {},
                     {}};
  report.ceilings = MeasureCeilings(plan, devices, engine.threads_per_rank(), compute);
  WriteOut(Heading(report) + "\n");
  {
    Progress progress("timing");
    report.measurements = RunBench(engine, spec, plan, [&](double share) { progress.Show(share); });
  }
  WriteOut(Table(report));
  if (devices.front().gpu) {
    report.gpu = MeasureGpu(engine, report, plan, devices.front());
    WriteOut(ToText(*report.gpu));
  }
  if (json) json.Write(ToJson(report));
  if (svg) svg.Write(ToSvg(report));
  if (timeline || trace) {
    const PrefillReport fastest = RunFastestAgain(engine, spec, plan, report.measurements);
    if (timeline) timeline.Write(TimelinePicture(fastest));
    if (trace) trace.Write(report::TraceEvents(fastest.timeline));
  }
  for (const Measurement* wrong : report.Wrong()) {
    throw Error(fmt::format("{} at {} tokens: logits differ from one rank's by {:.2e} of the largest, {:.2e} allowed",
                            wrong->combination.ToString(), wrong->context, wrong->logit_difference,
                            report.allowed_difference));
  }
  return 0;
}

}  // namespace

Action AddBench(CLI::App& command) {
  constexpr int kMostRepeats = 100000;
  constexpr int kMostDecodedTokens = 100000;
  auto flags = std::make_shared<BenchFlags>();
  flags->engine.devices = fmt::format("cpu:{}", std::clamp<size_t>(AvailableProcessors().size(), 2, 8));
  command
      .add_option("--model", flags->models,
                  "A Hugging Face folder (make-model writes one) or GGUF file; several for a suite")
      ->type_name("DIR")
      ->allow_extra_args(false);
  AddEngineFlags(command, flags->engine);
  const auto list = [&](const char* flag, std::string& value, const std::string& help) {
    command.add_option(flag, value, fmt::format("{} [{}]", help, value.empty() ? "all of --devices" : value))
        ->type_name("A,B,C");
  };
  list("--contexts", flags->contexts, "Tokens in the prompts");
  list("--strategies", flags->strategies, "Ways to prefill");
  list("--topologies", flags->topologies, fmt::format("Topologies of runahead: {}", TopologyNames()));
  list("--ranks", flags->ranks, "Use the first so many ranks");
  command
      .add_option("--partitions", flags->partitions,
                  fmt::format("{}, or fractions like 5,4,3 for as many ranks; may be repeated [{}]", PartitionNames(),
                              flags->partitions.front()))
      ->type_name("A,B,C")
      ->allow_extra_args(false);
  AddInteger(command, "--repeats", flags->plan.repeats, 1, kMostRepeats, "Timed runs of each [5]");
  AddInteger(command, "--warmup", flags->plan.warmup, 0, kMostRepeats, "Runs before them that are not counted [1]");
  AddInteger(command, "--decode-tokens", flags->decoded_tokens, 0, kMostDecodedTokens,
             "Decoded greedily behind each prompt, as far as the model's context goes [64 on GPUs, else 0]");
  AddInteger(command, "--seed", flags->plan.seed, 0, INT64_MAX, "Seed of the prompts' random ids [0]");
  command.add_option("--json", flags->json, "Write all measurements")->type_name("FILE");
  command.add_option("--svg", flags->svg, "Write a chart of TTFT by context")->type_name("FILE");
  command
      .add_option("--timeline", flags->timeline,
                  "Write a picture of one more run: the last context's fastest on several ranks")
      ->type_name("FILE.svg");
  command.add_option("--trace", flags->trace, "Write that run as trace events (for Perfetto)")->type_name("FILE");
  AddSuiteFlags(command, flags->suite);
  AddKvMemoryFlag(command, flags->engine);
  AddMaxPauseFlag(command, flags->engine);
  AddGroupFlags(command, flags->group);
  const CLI::Option* const contexts = command.get_option("--contexts");
  return [flags, contexts, &command] {
    UseOneRankEach(command, flags->engine);
    flags->contexts_given = contexts->count() > 0;
    return RunBench(*flags);
  };
}

}  // namespace runahead::cli
