#include "batch_input.h"

#include <fmt/format.h>

#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/input_file.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

constexpr size_t kMostNamed = 10;

/// Reads lines one after the other.
class LineReader {
 public:
  LineReader(std::string name, const protocol::ModelLimits& limits) : limits_(limits) {
    input_.name = std::move(name);
  }

  void Add(std::string_view line) {
    ++line_;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
    try {
      Read(line);
    } catch (const ConfigError& error) {
      if (input_.wrong.size() < kMostNamed) input_.wrong.emplace_back(error.what());
      ++input_.wrong_lines;
    }
  }

  BatchInput Take() {
    input_.unknown_names = static_cast<int64_t>(unknown_.size());
    return std::move(input_);
  }

 private:
  void Read(std::string_view line) {
    const std::string origin = fmt::format("{}:{}", input_.name, line_);
    const Json json = ParseJson(line, origin);
    const JsonObject object(json, origin);
    Json id = line_;
    if (object.Has("id")) id = object.At("id");
    if (!id.is_string() && !id.is_number()) object.Refuse("id", "expected a string or a number");
    const auto [first, is_new] = line_of_id_.try_emplace(id.dump(), line_);
    if (!is_new) {
      throw ConfigError(fmt::format("{}: id: {} is also the id of line {}", origin, id.dump(), first->second));
    }
    for (const auto& [name, value] : json.items()) {
      if (name == "id" || protocol::IsRequestField(name) || !unknown_.insert(name).second) continue;
      if (input_.unknown_fields.size() < kMostNamed) input_.unknown_fields.push_back(name);
    }
    protocol::RequestFields fields = protocol::ReadRequestFields(object, limits_);
    input_.requests.push_back({line_, std::move(id), std::move(fields.request), fields.choices});
  }

  const protocol::ModelLimits& limits_;
  BatchInput input_;
  int64_t line_ = 0;
  std::unordered_map<std::string, int64_t> line_of_id_;  // by the id as JSON
  std::set<std::string> unknown_;
};

}  // namespace

BatchInput ReadBatch(const std::string& path, const protocol::ModelLimits& limits) {
  const std::string content = ReadInput(path);
  LineReader reader(path == "-" ? "stdin" : path, limits);
  std::string_view rest = content;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    reader.Add(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  BatchInput input = reader.Take();
  if (input.requests.empty() && input.wrong_lines == 0) {
    throw ConfigError(fmt::format("{}: holds no request, expected a JSON object in each line", input.name));
  }
  return input;
}

}  // namespace runahead::cli
