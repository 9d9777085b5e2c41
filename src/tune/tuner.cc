#include "tune/tuner.h"

#include <optional>
#include <utility>

#include "engine/engine_state.h"
#include "runahead/error.h"
#include "tune/measure_profile.h"

namespace runahead {

Tuner::Tuner(Engine engine, std::string folder) : engine_(std::move(engine)), folder_(std::move(folder)) {}

std::filesystem::path Tuner::FolderToStoreIn(const std::string& asked) {
  std::filesystem::path folder = TunedFolder(asked);
  const OutputFile probe(folder / "profile.json", Folders::kMake);
  return folder;
}

void Tuner::CheckFiles(bool profile, bool table) const {
  if (profile) (void)OpenProfile();
  if (table) (void)OpenTable();
}

OutputFile Tuner::OpenProfile() const {
  const ProfileKey key = StateOf(engine_)->Hold().planner().key();
  return OutputFile(ProfilePath(TunedFolder(folder_), key), Folders::kMake);
}

OutputFile Tuner::OpenTable() const {
  const ProfileKey key = StateOf(engine_)->Hold().planner().table_key();
  return OutputFile(TablePath(TunedFolder(folder_), key), Folders::kMake);
}

std::string Tuner::Refused() const { return StateOf(engine_)->Hold().planner().tuned().refused; }

bool Tuner::HasProfile() const { return StateOf(engine_)->Hold().planner().tuned().profile.has_value(); }

StoredProfile Tuner::MeasureProfile(int64_t longest, int repeats, const std::function<void(double)>& on_repeat) {
  OutputFile file = OpenProfile();
  return Store(runahead::MeasureProfile(StateOf(engine_), longest, repeats, on_repeat), std::move(file));
}

StoredProfile Tuner::MeasureLinks(int64_t longest, int repeats, const std::function<void(double)>& on_repeat) {
  const std::shared_ptr<EngineState> state = StateOf(engine_);
  std::optional<CostProfile> profile = state->Hold().planner().tuned().profile;
  if (!profile) throw ConfigError("links: there is no cost profile of this model on these ranks yet");
  OutputFile file = OpenProfile();
  const LinkTable links = MeasureHops(state, longest, repeats, on_repeat);
  for (auto& [active, costs] : profile->active) costs.links = links;
  return Store(*std::move(profile), std::move(file));
}

StoredProfile Tuner::Store(CostProfile profile, OutputFile file) {
  StoredProfile stored{std::move(profile), file.path()};
  file.Write(ToJson(stored.profile));
  const HeldEngine held = StateOf(engine_)->Hold();
  Tuned tuned = held.planner().tuned();
  tuned.profile = stored.profile;
  held.planner().Use(std::move(tuned));
  return stored;
}

StoredSearches Tuner::Search(const DecoderSpec& spec, const SearchPlan& plan,
                             const std::function<void(int64_t, int)>& on_step) {
  const std::shared_ptr<EngineState> state = StateOf(engine_);
  OutputFile file = OpenTable();
  StoredSearches stored{SearchPartitions(engine_, spec, plan, on_step), file.path()};
  const HeldEngine held = state->Hold();
  Tuned tuned = held.planner().tuned();
  if (!tuned.table) tuned.table = PartitionTable{held.planner().table_key(), {}};
  for (const SearchReport& report : stored.reports) tuned.table->Put(report.best);
  file.Write(ToJson(*tuned.table));
  held.planner().Use(std::move(tuned));
  return stored;
}

}  // namespace runahead
