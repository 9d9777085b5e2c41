// `runahead make-model`: a model of a known size with random weights.
#include "model/make_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <climits>
#include <memory>

#include "command.h"
#include "flags.h"
#include "output.h"

namespace runahead::cli {
namespace {

struct MakeModelFlags {
  std::string preset;
  std::string folder;
  uint64_t seed = 0;
};

int RunMakeModel(const MakeModelFlags& flags) {
  Progress progress("writing random weights");
  MakeModel(flags.preset, flags.folder, flags.seed, [&](double share) { progress.Show(share); });
  return 0;
}

}  // namespace

Action AddMakeModel(CLI::App& command) {
  auto flags = std::make_shared<MakeModelFlags>();
  command.add_option("preset", flags->preset, fmt::format("One of {}", fmt::join(PresetNames(), ", ")))
      ->required()
      ->type_name("PRESET");
  command.add_option("folder", flags->folder, "Where the model goes; empty or new")->required()->type_name("DIR");
  AddInteger(command, "--seed", flags->seed, 0, INT64_MAX, "Seed of the weights [0]");
  return [flags] { return RunMakeModel(*flags); };
}

}  // namespace runahead::cli
