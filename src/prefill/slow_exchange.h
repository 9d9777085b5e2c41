// A rank that computes more slowly than it could, for experiments with unequal ranks.
#pragma once

#include <atomic>
#include <memory>

#include "base/undisturbed.h"
#include "prefill/exchanges.h"

namespace runahead {

/// Wraps `inner` so that every stretch of compute of a prompt phase takes `slowdown` times as long by `clock`: the
/// rank's thread spins for the rest before it goes on to the exchange, or until `given_up`, which may be null. Only
/// the decode phase keeps its speed.
std::unique_ptr<PrefillExchange> MakeSlowExchange(std::unique_ptr<PrefillExchange> inner, double slowdown,
                                                  WorkClock clock, const std::atomic<bool>* given_up = nullptr);

}  // namespace runahead
