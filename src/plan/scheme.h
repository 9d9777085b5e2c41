// The ways to spread a prompt phase that plans compare.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "runahead/options.h"

namespace runahead {

/// A strategy together with its topology. kTensorParallel (every matrix cut over the ranks, two all-reduces of the
/// activations in each layer) exists in plans only.
enum class Scheme : unsigned char {
  kSingle,
  kRunaheadChain,
  kRunaheadDirect,
  kTspDense,
  kTspCausal,
  kTensorParallel
};

inline constexpr std::array kSchemes = {Scheme::kSingle,   Scheme::kRunaheadChain, Scheme::kRunaheadDirect,
                                        Scheme::kTspDense, Scheme::kTspCausal,     Scheme::kTensorParallel};

/// The strategy's name, of kRunahead with the topology's: "runahead chain", "tsp", ...; "tp".
std::string_view Name(Scheme scheme);
/// The scheme of that Name, or nothing.
std::optional<Scheme> ParseScheme(std::string_view name);

/// `topology` counts for kRunahead alone.
Scheme SchemeOf(Strategy strategy, Topology topology);
/// kChain where the topology does not count.
Topology TopologyOf(Scheme scheme);

/// Whether ranks own chunks whose lengths are free to choose.
constexpr bool IsRunahead(Scheme scheme) {
  return scheme == Scheme::kRunaheadChain || scheme == Scheme::kRunaheadDirect;
}

}  // namespace runahead
