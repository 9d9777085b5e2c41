#include "plan/scheme.h"

#include "base/check.h"

namespace runahead {

std::string_view Name(Scheme scheme) {
  switch (scheme) {
    case Scheme::kSingle:
      return "single";
    case Scheme::kRunaheadChain:
      return "runahead chain";
    case Scheme::kRunaheadDirect:
      return "runahead direct";
    case Scheme::kTspDense:
      return "tsp";
    case Scheme::kTspCausal:
      return "tsp-causal";
    case Scheme::kTensorParallel:
      return "tp";
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown scheme");
}

std::optional<Scheme> ParseScheme(std::string_view name) {
  for (const Scheme scheme : kSchemes) {
    if (Name(scheme) == name) return scheme;
  }
  return std::nullopt;
}

Scheme SchemeOf(Strategy strategy, Topology topology) {
  switch (strategy) {
    case Strategy::kSingle:
      return Scheme::kSingle;
    case Strategy::kRunahead:
      return topology == Topology::kChain ? Scheme::kRunaheadChain : Scheme::kRunaheadDirect;
    case Strategy::kTspDense:
      return Scheme::kTspDense;
    case Strategy::kTspCausal:
      return Scheme::kTspCausal;
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown strategy");
}

}  // namespace runahead
