#include "flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <cmath>
#include <optional>
#include <utility>

#include "ops/weight_format.h"
#include "output.h"
#include "protocol/sampling_ranges.h"
#include "runahead/error.h"
#include "tensor/dtype.h"

namespace runahead::cli {
namespace {

using protocol::kHottest;
using protocol::kLargestPenalty;
using protocol::kMostPresence;
using protocol::kSmallestPenalty;
using protocol::kSmallestTopP;

constexpr size_t kMaxShown = 60;  // bytes of a bad value in a message

std::string Shorten(std::string_view text) {
  return text.size() <= kMaxShown ? std::string(text) : std::string(text.substr(0, kMaxShown)) + "...";
}

std::string_view WithoutSpaces(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

template <typename T>
std::optional<T> Convert(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

int64_t ParseInteger(const std::string& name, std::string_view text, int64_t min, int64_t max) {
  const auto value = Convert<int64_t>(WithoutSpaces(text));
  if (!value || *value < min || *value > max) {
    throw ConfigError(fmt::format("{}: expected an integer from {} to {}, got '{}'", name, min, max, Shorten(text)));
  }
  return *value;
}

double ParseNumber(const std::string& name, std::string_view text, double min, double max) {
  const auto value = Convert<double>(WithoutSpaces(text));
  if (!value || !(*value >= min && *value <= max)) {
    throw ConfigError(fmt::format("{}: expected a number from {} to {}, got '{}'", name, min, max, Shorten(text)));
  }
  return *value;
}

size_t ParseBytes(const std::string& name, std::string_view text) {
  constexpr double kMost = 0x1p50;
  constexpr std::array<std::pair<std::string_view, double>, 9> kUnits{{{"B", 1},
                                                                       {"kB", 1e3},
                                                                       {"MB", 1e6},
                                                                       {"GB", 1e9},
                                                                       {"TB", 1e12},
                                                                       {"KiB", 0x1p10},
                                                                       {"MiB", 0x1p20},
                                                                       {"GiB", 0x1p30},
                                                                       {"TiB", 0x1p40}}};
  const std::string_view whole = WithoutSpaces(text);
  const size_t digits = std::min(whole.find_first_not_of("0123456789."), whole.size());
  const auto number = Convert<double>(whole.substr(0, digits));
  const std::string_view unit = WithoutSpaces(whole.substr(digits));
  for (const auto& [known, factor] : kUnits) {
    if (!number || unit != known) continue;
    const double bytes = *number * factor;
    if (bytes >= 1 && bytes <= kMost) return static_cast<size_t>(bytes);
  }
  throw ConfigError(fmt::format("{}: expected a size like 8GB or 512MiB, got '{}'", name, Shorten(text)));
}

std::vector<int64_t> ParseIntegers(const std::string& name, std::string_view text, int64_t min, int64_t max) {
  std::vector<int64_t> values;
  for (const std::string& part : SplitList(name, text)) values.push_back(ParseInteger(name, part, min, max));
  return values;
}

std::vector<std::string> SplitList(const std::string& name, std::string_view text) {
  std::vector<std::string> parts;
  std::string_view rest = text;
  while (true) {
    const size_t comma = rest.find(',');
    parts.emplace_back(WithoutSpaces(rest.substr(0, comma)));
    if (parts.back().empty()) {
      throw ConfigError(fmt::format("{}: expected a list separated by single commas, got '{}'", name, Shorten(text)));
    }
    if (comma == std::string_view::npos) return parts;
    rest.remove_prefix(comma + 1);
  }
}

std::vector<std::string> SplitPartitions(const std::string& name, std::string_view text,
                                         const std::vector<int64_t>& ranks) {
  std::vector<std::string> partitions;
  std::string fractions;
  for (const std::string& part : SplitList(name, text)) {
    const bool number = part.find_first_not_of("0123456789.e+-") == std::string::npos;
    if (number) {
      fractions += (fractions.empty() ? "" : ",") + part;
    } else {
      partitions.push_back(part);
    }
  }
  if (!fractions.empty()) partitions.push_back(fractions);
  for (const std::string& partition : partitions) {
    const auto count = static_cast<int64_t>(PartitionRequest::Parse(partition).fractions.size());
    if (count == 0 || std::find(ranks.begin(), ranks.end(), count) != ranks.end()) continue;
    throw ConfigError(fmt::format("{}: '{}' has {} fraction{}, one for each rank, but no run is on {} rank{}", name,
                                  partition, count, count == 1 ? "" : "s", count, count == 1 ? "" : "s"));
  }
  return partitions;
}

CLI::Option* AddNumber(CLI::App& command, const std::string& flag, double& value, double min, double max,
                       const std::string& help) {
  const auto read = [&value, flag, min, max](const std::string& text) { value = ParseNumber(flag, text, min, max); };
  return command.add_option_function<std::string>(flag, read, help)->type_name("X");
}

void AddEngineFlags(CLI::App& command, EngineOptions& options) {
  constexpr int kMaxThreads = 1024;
  constexpr double kMaxSlowdown = 1000;
  constexpr double kMinTimeout = 1e-3;
  constexpr double kMaxTimeout = 1e9;
  command
      .add_option("--devices", options.devices,
                  fmt::format("cpu, cpu:4 for four CPU ranks, or cuda:0,1 for GPUs [{}]", options.devices))
      ->type_name("DEVICES");
  const auto read_threads = [&options](const std::string& text) {
    options.threads_of_rank.clear();
    for (const int64_t threads : ParseIntegers("--threads-per-rank", text, 1, kMaxThreads)) {
      options.threads_of_rank.push_back(static_cast<int>(threads));
    }
    if (options.threads_of_rank.size() > 1) return;
    options.threads_per_rank = options.threads_of_rank.front();
    options.threads_of_rank.clear();
  };
  command
      .add_option_function<std::string>(
          "--threads-per-rank", read_threads,
          "Threads of each rank, or a list with one number for each [the processors divided by the ranks]")
      ->type_name("N|A,B,C");
  const auto read_slowdown = [&options](const std::string& text) {
    options.slowdown_of_rank.clear();
    for (const std::string& part : SplitList("--rank-slowdown", text)) {
      options.slowdown_of_rank.push_back(ParseNumber("--rank-slowdown", part, 1, kMaxSlowdown));
    }
  };
  command
      .add_option_function<std::string>(
          "--rank-slowdown", read_slowdown,
          "For experiments: compute of each rank's prompt phase takes so many times as long, as in 1,3 [1]")
      ->type_name("A,B,C");
  command.add_flag(
      "--deterministic", options.deterministic,
      "Answers that do not depend on requests beside them, by a single bit: always so on CPUs, slower on GPUs");
  command
      .add_option("--tuned", options.tuned_folder,
                  "Where `runahead tune` keeps its measurements [runahead in the user's cache folder]")
      ->type_name("DIR");
  command
      .add_option("--link", options.link,
                  "Between GPUs: auto (straight where they reach each other) or host, through host memory [auto]")
      ->type_name("NAME");
  command
      .add_option("--link-bandwidth", options.link_bandwidth,
                  "For experiments: no link carries more than this, or these links no more than so much each, as in "
                  "0-1=10GB/s,1-2=500MB/s")
      ->type_name("RATE|LIST");
  command
      .add_option("--rank-bandwidth", options.rank_bandwidth,
                  "For experiments: no more than this leaves a rank, over all its links, and no more enters it; or a "
                  "list with one rate for each")
      ->type_name("RATE|LIST");
  const auto read_wire = [&options](const std::string& text) {
    (void)ParseWire(text);
    options.wire = text;
  };
  command
      .add_option_function<std::string>(
          "--wire", read_wire,
          fmt::format("How rows travel between CPU ranks: {}; all but exact change answers a little [{}]",
                      WireNames(), options.wire))
      ->type_name("FORMAT");
  AddInteger(command, "--context", options.context, 1, INT32_MAX,
             "Longest sequence, prompt and answer together, be it more than the model says [as it says]");
  const auto read_dtype = [&options](const std::string& text) {
    if (!ParseDType(text))
      throw ConfigError(fmt::format("--dtype: expected f32, bf16 or f16, got '{}'", Shorten(text)));
    options.dtype = text;
  };
  command
      .add_option_function<std::string>(
          "--dtype", read_dtype,
          "Compute and cache in f32, bf16 or f16 [the weights' own where the device is good at it]")
      ->type_name("DTYPE");
  const auto read_weights = [&options](const std::string& text) {
    if (!ParseWeightFormat(text))
      throw ConfigError(fmt::format("--weights: expected {}, got '{}'", kWeightFormatNames, Shorten(text)));
    options.weights = text;
  };
  command
      .add_option_function<std::string>("--weights", read_weights,
                                        "Matrices as they are stored, or quantised while they are loaded: stored, on "
                                        "CPU ranks int8 or int4, on GPUs "
                                        "fp8 [stored]")
      ->type_name("FORMAT");
  AddNumber(command, "--timeout", options.timeout_s, kMinTimeout, kMaxTimeout,
            fmt::format("Seconds that a rank waits for rows of another [{}]", options.timeout_s))
      ->type_name("SECONDS");
}

void AddKvMemoryFlag(CLI::App& command, EngineOptions& options) {
  const auto read_memory = [&options](const std::string& text) {
    options.kv_memory = ParseBytes("--kv-memory", text);
  };
  command
      .add_option_function<std::string>("--kv-memory", read_memory,
                                        "Memory of each rank's KV-cache, for all sequences together, as in 8GB or "
                                        "512MiB [what is free, less a reserve]")
      ->type_name("SIZE");
}

void AddCacheFlags(CLI::App& command, EngineOptions& options) {
  CLI::Option* const folder =
      command
          .add_option("--cache-dir", options.cache_dir,
                      "Keep rows of prompts and answers in this folder, and find those of earlier runs there")
          ->type_name("DIR");
  const auto read_size = [&options](const std::string& text) {
    options.cache_size = ParseBytes("--cache-size", text);
  };
  command
      .add_option_function<std::string>("--cache-size", read_size,
                                        "Room for them; what was used least recently goes [10GB]")
      ->type_name("SIZE")
      ->needs(folder);
}

void FinishCache(const Engine& engine, const EngineOptions& options) {
  if (options.cache_dir.empty()) return;
  if (const std::string failure = engine.FlushCache(); !failure.empty()) {
    Warn(fmt::format("--cache-dir: not all rows are kept: {}", failure));
  }
}

void AddMaxPauseFlag(CLI::App& command, EngineOptions& options) {
  constexpr double kShortest = 1;
  constexpr double kLongest = 1e9;
  AddNumber(command, "--max-pause", options.max_pause_ms, kShortest, kLongest,
            fmt::format("Milliseconds that running answers wait at most for a step of another's prompt phase [{}]",
                        options.max_pause_ms))
      ->type_name("MS");
}

void AddSamplingFlags(CLI::App& command, GenerationOptions& options) {
  AddInteger(command, "-n", options.max_new_tokens, 1, INT32_MAX,
             fmt::format("At most so many new tokens [{}]", options.max_new_tokens));
  AddNumber(command, "--temperature", options.sampling.temperature, 0, kHottest,
            "0 takes the likeliest token each time [0]");
  AddInteger(command, "--top-k", options.sampling.top_k, 0, INT32_MAX, "Draw from the K likeliest; 0: from all [0]");
  AddNumber(command, "--top-p", options.sampling.top_p, kSmallestTopP, 1,
            "Draw from the likeliest that together reach this probability [1]");
  AddNumber(command, "--min-p", options.sampling.min_p, 0, 1,
            "Draw from those at least so many times as likely as the likeliest [0]");
  AddNumber(command, "--repetition-penalty", options.sampling.repetition_penalty, kSmallestPenalty, kLargestPenalty,
            "Divide the positive logits of tokens that came, prompt and all, and multiply the negative ones [1]");
  AddNumber(command, "--presence-penalty", options.sampling.presence_penalty, -kMostPresence, kMostPresence,
            "Take this from the logits of new tokens that came already [0]");
  AddNumber(command, "--frequency-penalty", options.sampling.frequency_penalty, -kMostPresence, kMostPresence,
            "Take this from them for each time that they came [0]");
  AddInteger(command, "--seed", options.sampling.seed, 0, INT64_MAX, "Seed of the draws [0]");
  command
      .add_option("--stop", options.stop,
                  "End before this text, or special token as it is spelt; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  const auto add_stop_ids = [&options](const std::string& text) {
    for (const int64_t id : ParseIntegers("--stop-id", text, 0, INT32_MAX)) {
      options.stop_ids.push_back(static_cast<int32_t>(id));
    }
  };
  command.add_option_function<std::string>("--stop-id", add_stop_ids, "End before any of these token ids")
      ->type_name("A,B,C")
      ->allow_extra_args(false)
      ->trigger_on_parse();
}

void AddPrefillFlags(CLI::App& command, PrefillOptions& options) {
  command
      .add_option_function<std::string>(
          "--strategy", [&options](const std::string& text) { options.strategy = ParseStrategy(text); },
          fmt::format("How the prompt is prefilled: {} [{}]", StrategyNames(), Name(options.strategy)))
      ->type_name("NAME");
  command
      .add_option_function<std::string>(
          "--topology", [&options](const std::string& text) { options.topology = ParseTopology(text); },
          fmt::format("How runahead hands rows over: {} [with auto: what is faster; {}]", TopologyNames(),
                      Name(Topology::kChain)))
      ->type_name("NAME");
  command
      .add_option_function<std::string>(
          "--partition", [&options](const std::string& text) { options.partition = PartitionRequest::Parse(text); },
          fmt::format("Where runahead cuts the prompt: {}, or fractions like 5,4,3 [{}]", PartitionNames(),
                      Name(options.partition.kind)))
      ->type_name("NAME|FRACTIONS");
  command
      .add_option_function<std::string>(
          "--gather", [&options](const std::string& text) { options.gather = ParseGather(text); },
          fmt::format("How {} and {} gather on GPUs: {} [{}]", Name(Strategy::kTspDense), Name(Strategy::kTspCausal),
                      GatherNames(), Name(options.gather)))
      ->type_name("NAME");
}

}  // namespace runahead::cli
