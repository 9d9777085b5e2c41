#include "plan/scheme.h"

#include <algorithm>
#include <string>

#include "base/check.h"

namespace runahead {
namespace {

constexpr std::string_view kTensorParallelName = "tp";  // no prompt phase runs it, so that it is no Strategy

/// The strategy and topology of a scheme.
struct Row {
  Scheme scheme;
  Strategy strategy;
  Topology topology;
};
constexpr std::array kRows = {Row{Scheme::kSingle, Strategy::kSingle, Topology::kChain},
                              Row{Scheme::kRunaheadChain, Strategy::kRunahead, Topology::kChain},
                              Row{Scheme::kRunaheadDirect, Strategy::kRunahead, Topology::kDirect},
                              Row{Scheme::kTspDense, Strategy::kTspDense, Topology::kDirect},
                              Row{Scheme::kTspCausal, Strategy::kTspCausal, Topology::kDirect}};

/// Composed of the names of strategies and topologies, in the order of kSchemes.
std::array<std::string, kSchemes.size()> MakeNames() {
  std::array<std::string, kSchemes.size()> names;
  names[static_cast<size_t>(Scheme::kTensorParallel)] = kTensorParallelName;
  for (const Row& row : kRows) {
    std::string& name = names[static_cast<size_t>(row.scheme)];
    name = Name(row.strategy);
    if (IsRunahead(row.scheme)) name.append(" ").append(Name(row.topology));
  }
  return names;
}

}  // namespace

std::string_view Name(Scheme scheme) {
  static const std::array<std::string, kSchemes.size()> names = MakeNames();
  return names.at(static_cast<size_t>(scheme));
}

std::optional<Scheme> ParseScheme(std::string_view name) {
  for (const Scheme scheme : kSchemes) {
    if (Name(scheme) == name) return scheme;
  }
  return std::nullopt;
}

Scheme SchemeOf(Strategy strategy, Topology topology) {
  for (const Row& row : kRows) {
    if (row.strategy == strategy && (row.topology == topology || !IsRunahead(row.scheme))) return row.scheme;
  }
  internal::CheckFailed(__FILE__, __LINE__, "a strategy without a scheme");
}

Topology TopologyOf(Scheme scheme) {
  return scheme == Scheme::kRunaheadDirect ? Topology::kDirect : Topology::kChain;
}

}  // namespace runahead
