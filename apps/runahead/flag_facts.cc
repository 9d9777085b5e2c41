#include "flag_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "runahead/error.h"
#include "runahead/options.h"
#include "runahead/planner.h"

namespace runahead::cli {
namespace {

template <typename... Enums>
std::vector<std::string> NamesOf(Enums... all) {
  return {std::string(Name(all))...};
}

/// The values of a flag that takes one of a few names.
std::vector<std::string> ValuesOf(const std::string& command, const std::string& flag) {
  if (flag == "--strategy") {
    return NamesOf(Strategy::kRunahead, Strategy::kSingle, Strategy::kTspDense, Strategy::kTspCausal);
  }
  if (flag == "--topology") return NamesOf(Topology::kChain, Topology::kDirect);
  if (flag == "--gather") return NamesOf(Gather::kCopies, Gather::kNccl);
  if (flag == "--partition") {
    return NamesOf(PartitionKind::kAuto, PartitionKind::kEven, PartitionKind::kSearched, PartitionKind::kPredicted);
  }
  if (flag == "--log") return {"text", "json"};
  if (flag == "--dtype") return {"f32", "bf16", "f16"};
  if (flag == "--weights") return {"stored", "int8", "int4", "fp8"};
  if (flag == "--preset") return command == "plan" ? Planner::KnownClusters() : Planner::KnownModels();
  return {};
}

FlagFacts FactsOf(const std::string& command, const CLI::Option& option) {
  FlagFacts facts;
  for (const std::string& name : option.get_snames()) facts.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) {
    facts.names.push_back("--" + name);
    facts.values = ValuesOf(command, facts.names.back());
  }
  if (option.get_items_expected_max() > 0) facts.value = option.get_type_name();
  if (command == "cache" && facts.names.empty()) facts.values = {"list", "verify", "drop"};
  if (facts.names.empty() && facts.value.empty()) facts.value = option.get_name(/*positional=*/true);
  facts.help = option.get_description();
  return facts;
}

}  // namespace

bool FlagFacts::TakesPath() const {
  constexpr std::array<std::string_view, 3> kPaths = {"FILE", "DIR", "MODEL"};
  return std::any_of(kPaths.begin(), kPaths.end(),
                     [&](std::string_view word) { return value.find(word) != std::string::npos; });
}

std::vector<FlagFacts> FlagsOf(const CLI::App& command) {
  std::vector<FlagFacts> flags;
  for (const CLI::Option* option : command.get_options()) flags.push_back(FactsOf(command.get_name(), *option));
  for (const CLI::App* group : command.get_subcommands([](const CLI::App*) { return true; })) {
    if (!group->get_name().empty()) continue;
    for (const FlagFacts& flag : FlagsOf(*group)) flags.push_back(flag);
  }
  return flags;
}

void RefuseEmptyPaths(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    const FlagFacts facts = FactsOf(command.get_name(), *option);
    const std::vector<std::string> given = option->results();
    if (!facts.TakesPath() || std::find(given.begin(), given.end(), "") == given.end()) continue;
    const std::string name = facts.names.empty() ? option->get_name(/*positional=*/true) : facts.names.back();
    throw ConfigError(fmt::format("{}: expected {}, got ''", name, facts.value));
  }
  for (const CLI::App* group : command.get_subcommands([](const CLI::App*) { return true; })) {
    if (group->get_name().empty()) RefuseEmptyPaths(*group);
  }
}

std::vector<const CLI::App*> CommandsOf(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) { return !command->get_name().empty(); });
}

}  // namespace runahead::cli
