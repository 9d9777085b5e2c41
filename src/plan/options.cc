#include "runahead/options.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr std::array kStrategies{std::pair{std::string_view("single"), Strategy::kSingle},
                                 std::pair{std::string_view("runahead"), Strategy::kRunahead},
                                 std::pair{std::string_view("tsp"), Strategy::kTspDense},
                                 std::pair{std::string_view("tsp-causal"), Strategy::kTspCausal}};
constexpr std::array kTopologies{std::pair{std::string_view("chain"), Topology::kChain},
                                 std::pair{std::string_view("direct"), Topology::kDirect}};
constexpr std::array kGathers{std::pair{std::string_view("copies"), Gather::kCopies},
                              std::pair{std::string_view("nccl"), Gather::kNccl}};
constexpr std::array kWireFormats{
    std::pair{std::string_view("exact"), WireFormat::kExact}, std::pair{std::string_view("int8"), WireFormat::kInt8},
    std::pair{std::string_view("fp8"), WireFormat::kFp8}, std::pair{std::string_view("int4"), WireFormat::kInt4}};
constexpr std::array kAskedPartitions{std::pair{std::string_view("even"), PartitionKind::kEven},
                                      std::pair{std::string_view("searched"), PartitionKind::kSearched},
                                      std::pair{std::string_view("predicted"), PartitionKind::kPredicted},
                                      std::pair{std::string_view("auto"), PartitionKind::kAuto}};
constexpr std::string_view kManualName = "manual";  // asked for by fractions

template <typename Table, typename Value>
std::string_view NameIn(const Table& table, const char* what, Value value) {
  for (const auto& [name, entry] : table) {
    if (entry == value) return name;
  }
  throw ConfigError(fmt::format("{}: no value has the number {}", what, static_cast<int>(value)));
}

template <typename Table>
std::string NamesIn(const Table& table) {
  std::string names;
  for (const auto& [name, entry] : table) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
  return names;
}

template <typename Table>
auto ParseIn(const Table& table, const char* what, std::string_view text) {
  for (const auto& [name, entry] : table) {
    if (name == text) return entry;
  }
  throw ConfigError(fmt::format("{}: unknown '{}' (known: {})", what, text, NamesIn(table)));
}

double ParseFraction(std::string_view text, std::string_view whole) {
  double fraction = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fraction);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(fraction) || fraction <= 0) {
    throw ConfigError(
        fmt::format("partition: expected {} or positive fractions like 5,4,3, got '{}'", PartitionNames(), whole));
  }
  return fraction;
}

}  // namespace

std::string_view Name(Strategy strategy) { return NameIn(kStrategies, "strategy", strategy); }
std::string_view Name(Topology topology) { return NameIn(kTopologies, "topology", topology); }
std::string_view Name(Gather gather) { return NameIn(kGathers, "gather", gather); }
std::string_view Name(WireFormat format) { return NameIn(kWireFormats, "wire", format); }
std::string_view Name(PartitionKind kind) {
  return kind == PartitionKind::kManual ? kManualName : NameIn(kAskedPartitions, "partition", kind);
}

std::string StrategyNames() { return NamesIn(kStrategies); }
std::string TopologyNames() { return NamesIn(kTopologies); }
std::string GatherNames() { return NamesIn(kGathers); }
std::string WireNames() { return "auto, " + NamesIn(kWireFormats); }
std::string PartitionNames() { return NamesIn(kAskedPartitions); }

Strategy ParseStrategy(std::string_view text) { return ParseIn(kStrategies, "strategy", text); }
Topology ParseTopology(std::string_view text) { return ParseIn(kTopologies, "topology", text); }
Gather ParseGather(std::string_view text) { return ParseIn(kGathers, "gather", text); }
std::optional<WireFormat> ParseWire(std::string_view text) {
  if (text == "auto") return std::nullopt;
  for (const auto& [name, format] : kWireFormats) {
    if (name == text) return format;
  }
  throw ConfigError(fmt::format("wire: unknown '{}' (known: {})", text, WireNames()));
}

PartitionRequest PartitionRequest::Parse(std::string_view text) {
  for (const auto& [name, kind] : kAskedPartitions) {
    if (name == text) return {kind, {}};
  }
  PartitionRequest request{PartitionKind::kManual, {}};
  std::string_view rest = text;
  while (true) {
    const size_t comma = rest.find(',');
    request.fractions.push_back(ParseFraction(rest.substr(0, comma), text));
    if (comma == std::string_view::npos) return request;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace runahead
