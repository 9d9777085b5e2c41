// Samples of times on a machine whose processors a hypervisor lends to others now and then.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

namespace runahead {

/// Seconds for which a hypervisor has let others run on this machine's processors while they had work, added up over
/// all processors since the machine started, in steps of 0.01; 0 where nobody counts them.
double StolenSeconds();

/// Seconds since some moment.
double SecondsNow();
/// Seconds for which this thread has had a processor: what a hypervisor or other programs take meanwhile does not
/// count, but where it sleeps does not either.
double ThreadSeconds();

/// The clock of a rank's work: SecondsNow, or ThreadSeconds where one thread does all of it without sleeping.
using WorkClock = double (*)();

/// The clocks that watch samples; tests bring their own.
struct SampleClocks {
  std::function<double()> now_s = SecondsNow;
  std::function<double()> stolen_s = StolenSeconds;
};

template <typename Value>
struct Sample {
  Value value;
  double seconds = 0;   // duration of the sample, s
  double stolen_s = 0;  // time stolen from all processors meanwhile, s

  [[nodiscard]] bool undisturbed() const { return stolen_s <= 0; }
};

/// Takes samples until one during which no time was stolen, or until `patience_s` seconds have passed; returns the
/// one during which least was stolen, the first of equal ones. So it takes one sample where nothing is stolen, or
/// where nobody counts it. Time is stolen in bursts: a mean or a median of a fixed number of samples tells what
/// others did.
template <typename Take>
auto LeastDisturbed(const Take& take, double patience_s, const SampleClocks& clocks = {})
    -> Sample<decltype(take())> {
  std::optional<Sample<decltype(take())>> best;
  const double first_begin = clocks.now_s();
  for (double begin = first_begin;;) {
    const double stolen_before = clocks.stolen_s();
    Sample<decltype(take())> sample{take()};
    sample.stolen_s = clocks.stolen_s() - stolen_before;
    const double end = clocks.now_s();
    sample.seconds = end - begin;
    begin = end;
    if (!best || sample.stolen_s < best->stolen_s) best = std::move(sample);
    if (best->undisturbed() || end - first_begin >= patience_s) return std::move(*best);
  }
}

/// The samples that count, in their order: the undisturbed ones, or where these are fewer than `least`, as many of
/// those during which least was stolen.
template <typename Value>
std::vector<Sample<Value>> Counted(const std::vector<Sample<Value>>& samples, size_t least) {
  std::vector<double> stolen_s;
  for (const Sample<Value>& sample : samples) stolen_s.push_back(sample.stolen_s);
  std::sort(stolen_s.begin(), stolen_s.end());
  const double most_s = samples.empty() ? 0 : stolen_s[std::clamp<size_t>(least, 1, samples.size()) - 1];
  std::vector<Sample<Value>> counted;
  std::copy_if(samples.begin(), samples.end(), std::back_inserter(counted),
               [&](const Sample<Value>& sample) { return sample.stolen_s <= most_s; });
  return counted;
}

}  // namespace runahead
