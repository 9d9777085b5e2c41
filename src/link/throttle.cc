#include "link/throttle.h"

#include <algorithm>

#include "base/check.h"

namespace runahead {
namespace {

bool AnyPositive(const std::vector<double>& rates) {
  return std::any_of(rates.begin(), rates.end(), [](double rate) { return rate > 0; });
}

}  // namespace

bool LinkRates::any() const { return AnyPositive(of_link) || AnyPositive(of_rank); }

double LinkRates::Between(int from, int to, int ranks) const {
  double lowest = 0;
  const auto lower = [&](double rate) {
    if (rate > 0 && (lowest == 0 || rate < lowest)) lowest = rate;
  };
  if (!of_link.empty()) lower(of_link.at(static_cast<size_t>(from * ranks + to)));
  if (!of_rank.empty()) {
    lower(of_rank.at(static_cast<size_t>(from)));
    lower(of_rank.at(static_cast<size_t>(to)));
  }
  return lowest;
}

Throttle::Throttle(int ranks, LinkRates rates) : ranks_(ranks), rates_(std::move(rates)) {
  const auto n = static_cast<size_t>(ranks);
  CHECK(rates_.of_link.empty() || rates_.of_link.size() == n * n);
  CHECK(rates_.of_rank.empty() || rates_.of_rank.size() == n);
  links_.resize(n * n);
  leaving_.resize(n);
  coming_.resize(n);
}

std::shared_ptr<Throttle> Throttle::MakeFor(int ranks, const LinkRates& rates) {
  return rates.any() ? std::make_shared<Throttle>(ranks, rates) : nullptr;
}

MovedAt Throttle::Book(int from, int to, size_t bytes, Clock::time_point ready) {
  const double rate = rates_.Between(from, to, ranks_);
  if (rate == 0) return {ready, ready};
  const auto takes =
      std::chrono::ceil<Clock::duration>(std::chrono::duration<double>(static_cast<double>(bytes) / rate));
  const std::lock_guard lock(mutex_);
  Port& link = links_.at(static_cast<size_t>(from * ranks_ + to));
  if (rates_.of_rank.empty()) {
    const auto begin = std::max(ready, link);
    link = begin + takes;
    return {begin, link};
  }
  Port& out = leaving_.at(static_cast<size_t>(from));
  Port& in = coming_.at(static_cast<size_t>(to));
  const auto begin = std::max({ready, link, out});
  out = link = begin + takes;
  const auto entering = std::max(begin, in);  // bytes that arrive while the card is taken wait
  in = entering + takes;
  return {begin, in};
}

}  // namespace runahead
