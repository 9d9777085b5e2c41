// Flags that several subcommands share, and numbers read strictly.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/engine.h"
#include "runahead/generate.h"
#include "runahead/options.h"

namespace runahead::cli {

inline constexpr int kMostRanks = 256;

// Each throws ConfigError "<name>: expected ..., got '<text>'".
int64_t ParseInteger(const std::string& name, std::string_view text, int64_t min, int64_t max);
double ParseNumber(const std::string& name, std::string_view text, double min, double max);
/// "8GB", "512MiB" in bytes: a number above 0 and B, kB, MB, GB, TB, or KiB, MiB, GiB, TiB.
size_t ParseBytes(const std::string& name, std::string_view text);
/// "1,2,3": at least one, spaces around them allowed.
std::vector<int64_t> ParseIntegers(const std::string& name, std::string_view text, int64_t min, int64_t max);
/// The parts of "a,b,c". Throws ConfigError when one is empty.
std::vector<std::string> SplitList(const std::string& name, std::string_view text);
/// "even,auto" is two partitions, "5,4,3" is one. Throws ConfigError for what is no partition, and for fractions that
/// are for none of these numbers of ranks.
std::vector<std::string> SplitPartitions(const std::string& name, std::string_view text,
                                         const std::vector<int64_t>& ranks);

/// Adds a flag whose value must be an integer of [min, max].
template <typename Integer>
CLI::Option* AddInteger(CLI::App& command, const std::string& flag, Integer& value, int64_t min, int64_t max,
                        const std::string& help) {
  const auto read = [&value, flag, min, max](const std::string& text) {
    value = static_cast<Integer>(ParseInteger(flag, text, min, max));
  };
  return command.add_option_function<std::string>(flag, read, help)->type_name("N");
}

/// Adds a flag whose value must be a finite number of [min, max].
CLI::Option* AddNumber(CLI::App& command, const std::string& flag, double& value, double min, double max,
                       const std::string& help);

/// --devices, --threads-per-rank, --link, --dtype, --timeout and what experiments need.
void AddEngineFlags(CLI::App& command, EngineOptions& options);

/// --kv-memory, for commands that submit requests.
void AddKvMemoryFlag(CLI::App& command, EngineOptions& options);

/// --cache-dir and --cache-size, for the same.
void AddCacheFlags(CLI::App& command, EngineOptions& options);

/// Waits until the cache on disk has what it shall keep, and warns of what it has not.
void FinishCache(const Engine& engine, const EngineOptions& options);

/// --max-pause, for those that submit several at once.
void AddMaxPauseFlag(CLI::App& command, EngineOptions& options);

/// -n, --temperature and all else that says how an answer is drawn and where it ends, but for its end tokens.
void AddSamplingFlags(CLI::App& command, GenerationOptions& options);

/// --strategy, --topology, --partition and --gather.
void AddPrefillFlags(CLI::App& command, PrefillOptions& options);

}  // namespace runahead::cli
