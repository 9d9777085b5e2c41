#include "config_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "base/input_file.h"
#include "flag_facts.h"
#include "plan/toml.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

/// A value as the command line would give it. Throws ConfigError for what has no such form.
std::string TextOf(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  throw ConfigError(fmt::format("expected a text, a number, true, false or a list of them, got {}", value.dump()));
}

bool MayBeInAFile(const std::string& key) { return key != "help" && key != "help-all" && key != "config"; }

/// The flag --`key`; null: there is none that a file may give.
CLI::Option* FlagOf(CLI::App& command, const std::string& key) {
  return MayBeInAFile(key) ? command.get_option_no_throw("--" + key) : nullptr;
}

std::vector<std::string> KeysOf(const CLI::App& command) {
  std::vector<std::string> keys;
  for (const FlagFacts& flag : FlagsOf(command)) {
    if (flag.names.empty() || !flag.names.back().starts_with("--")) continue;
    const std::string key = flag.names.back().substr(2);
    if (MayBeInAFile(key)) keys.push_back(key);
  }
  return keys;
}

void Give(CLI::Option& option, const Json& value) {
  const bool flag = option.get_items_expected_max() == 0;
  if (flag != value.is_boolean()) {
    throw ConfigError(
        fmt::format("expected {}, got {}", flag ? "true or false" : option.get_type_name(), value.dump()));
  }
  std::vector<std::string> texts;
  if (value.is_array()) {
    for (const Json& part : value) texts.push_back(TextOf(part));
    // What takes one value takes lists as the command line has them.
    if (option.get_items_expected_max() == 1) texts = {fmt::format("{}", fmt::join(texts, ","))};
  } else {
    texts.push_back(TextOf(value));
  }
  for (const std::string& text : texts) option.add_result(text);
  if (!texts.empty()) option.run_callback();
}

}  // namespace

void ReadConfigFile(CLI::App& command, const std::string& path) {
  const Json file = ParseToml(ReadInput(path), path);
  for (const auto& [key, value] : file.items()) {
    CLI::Option* const option = FlagOf(command, key);
    if (option == nullptr) {
      throw ConfigError(
          fmt::format("{}: {}: unknown key (known: {})", path, Json(key).dump(), fmt::join(KeysOf(command), ", ")));
    }
    if (option->count() > 0) continue;  // the command line says it
    try {
      Give(*option, value);
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("{}: {}: {}", path, key, error.what()));
    } catch (const CLI::Error& error) {
      throw ConfigError(fmt::format("{}: {}: {}", path, key, error.what()));
    }
  }
  RefuseEmptyPaths(command);
}

}  // namespace runahead::cli
