// Measures an engine, so that it plans by what was found, now and in later runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/output_file.h"
#include "model/decoder_spec.h"
#include "plan/cost_profile.h"
#include "runahead/engine.h"
#include "tune/search_partitions.h"

namespace runahead {

/// A cost profile and the file that holds it.
struct StoredProfile {
  CostProfile profile;
  std::filesystem::path file;
};

/// Searches and the partition table that holds their best.
struct StoredSearches {
  std::vector<SearchReport> reports;
  std::filesystem::path file;
};

/// Measures one engine. What is found is stored in a file, replaces what was there of the same kind, and is used by
/// the engine's next prompt phases. Sessions of the engine may go on meanwhile, and disturb what is measured.
class Tuner {
 public:
  /// `folder`: the engine's EngineOptions::tuned_folder.
  Tuner(Engine engine, std::string folder);

  /// The folder of measurements that `asked` names, EngineOptions::tuned_folder. Throws IoError where nothing could
  /// be stored in it, ConfigError where it is not known: before an engine is loaded and measured.
  static std::filesystem::path FolderToStoreIn(const std::string& asked);

  /// Throws IoError for a file of measurements that could not be written or replaced: before the first is measured.
  void CheckFiles(bool profile, bool table) const;

  /// Why a file of measurements is not used; empty: there is none, or it is used.
  [[nodiscard]] std::string Refused() const;
  /// Whether the engine knows its measured costs.
  [[nodiscard]] bool HasProfile() const;

  /// Measures costs `repeats` times for prompts of up to `longest` tokens. `on_repeat` is told the share of the work
  /// done. Throws what Session throws, and IoError when the file cannot be written, as does Search.
  StoredProfile MeasureProfile(int64_t longest, int repeats, const std::function<void(double)>& on_repeat);
  /// Measures the links between several processes again, and keeps what the profile says of the ranks. Throws
  /// ConfigError where there is no profile, or one process; else as MeasureProfile.
  StoredProfile MeasureLinks(int64_t longest, int repeats, const std::function<void(double)>& on_repeat);
  /// SearchPartitions on a model of `spec`, the engine's.
  StoredSearches Search(const DecoderSpec& spec, const SearchPlan& plan,
                        const std::function<void(int64_t, int)>& on_step);

 private:
  /// Writes the profile, and has the engine use it.
  StoredProfile Store(CostProfile profile, OutputFile file);
  [[nodiscard]] OutputFile OpenProfile() const;
  [[nodiscard]] OutputFile OpenTable() const;

  Engine engine_;
  std::string folder_;
};

}  // namespace runahead
