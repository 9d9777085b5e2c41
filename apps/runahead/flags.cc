#include "flags.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>

#include "runahead/error.h"
#include "tensor/dtype.h"

namespace runahead::cli {
namespace {

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

CLI::Option* AddNumber(CLI::App& command, const std::string& flag, double& value, double min, double max,
                       const std::string& help) {
  const auto read = [&value, flag, min, max](const std::string& text) { value = ParseNumber(flag, text, min, max); };
  return command.add_option_function<std::string>(flag, read, help)->type_name("X");
}

void AddEngineFlags(CLI::App& command, EngineOptions& options) {
  constexpr int kMaxThreads = 1024;
  constexpr double kMinTimeout = 1e-3;
  constexpr double kMaxTimeout = 1e9;
  command
      .add_option("--devices", options.devices,
                  fmt::format("cpu, cpu:4 for four CPU ranks, or cuda:0 for a GPU [{}]", options.devices))
      ->type_name("DEVICES");
  AddInteger(command, "--threads-per-rank", options.threads_per_rank, 1, kMaxThreads,
             "Threads of each rank [the processors divided by the ranks]");
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
  AddNumber(command, "--timeout", options.timeout_s, kMinTimeout, kMaxTimeout,
            fmt::format("Seconds that a rank waits for rows of another [{}]", options.timeout_s))
      ->type_name("SECONDS");
}

void AddPrefillFlags(CLI::App& command, PrefillOptions& options) {
  command
      .add_option_function<std::string>(
          "--strategy", [&options](const std::string& text) { options.strategy = ParseStrategy(text); },
          "single, runahead, tsp or tsp-causal [runahead]")
      ->type_name("NAME");
  command
      .add_option_function<std::string>(
          "--topology", [&options](const std::string& text) { options.topology = ParseTopology(text); },
          "How runahead hands rows over: chain or direct [chain]")
      ->type_name("NAME");
  command
      .add_option_function<std::string>(
          "--partition", [&options](const std::string& text) { options.partition = PartitionRequest::Parse(text); },
          "Where runahead cuts the prompt: even, auto, or fractions like 5,4,3 [auto]")
      ->type_name("NAME|FRACTIONS");
}

}  // namespace runahead::cli
