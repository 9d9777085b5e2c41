#include "tune/probe.h"

#include <fmt/format.h>

#include <atomic>
#include <exception>
#include <future>
#include <set>

#include "engine/group_links.h"
#include "runahead/error.h"
#include "wire/bytes.h"

namespace runahead {
namespace {

/// A number that no probe of this process had.
uint64_t NewProbeNumber() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

/// Work for each other process of the members; `links` null: there are none.
std::vector<std::pair<int, GivenWork>> GiveOthers(EngineState& engine, const GroupLinks* links,
                                                  const std::vector<int>& members, WorkKind kind,
                                                  const std::string& order, std::chrono::duration<double> planned) {
  std::vector<std::pair<int, GivenWork>> given;
  for (const int process : links == nullptr ? std::set<int>() : links->OthersOf(members)) {
    given.emplace_back(process, GiveWork(engine, process, kind, order, planned));
  }
  return given;
}

}  // namespace

Probe::Probe(HeldEngine& held, std::vector<int> members, int64_t longest)
    : engine_(&held.engine()),
      number_(NewProbeNumber()),
      members_(std::move(members)),
      longest_(longest),
      here_(std::make_unique<ProbeRanks>(held, members_, longest)) {
  if (engine_->group() != nullptr) links_ = std::make_unique<GroupLinks>(*engine_);
}

Probe::Probe(Probe&& other) noexcept
    : engine_(std::exchange(other.engine_, nullptr)),
      number_(other.number_),
      members_(std::move(other.members_)),
      longest_(other.longest_),
      here_(std::move(other.here_)),
      links_(std::move(other.links_)) {}

Probe::~Probe() {
  if (engine_ == nullptr || links_ == nullptr) return;
  for (const int process : links_->OthersOf(members_)) {
    (void)GiveWork(*engine_, process, WorkKind::kEndProbe, EncodeId(number_));
  }
}

std::vector<size_t> Probe::PlacesIn(int process) const {
  std::vector<size_t> places;
  for (size_t place = 0; place < members_.size(); ++place) {
    if (links_ == nullptr || engine_->group()->processes->ProcessOf(members_[place]) == process) {
      places.push_back(place);
    }
  }
  return places;
}

void Probe::Run(HeldEngine& held, const ShortRun& run, int times, std::vector<Stretches>* seen) {
  CheckGroup(*engine_);
  const auto add = [&](int process, const std::vector<Stretches>& parts) {
    const std::vector<size_t> places = PlacesIn(process);
    if (parts.size() != places.size()) {
      throw LinkError(fmt::format("process {} measured {} ranks of {}", process, parts.size(), places.size()));
    }
    for (size_t i = 0; seen != nullptr && i < parts.size(); ++i) Append(parts[i], (*seen)[places[i]]);
  };
  auto others =
      GiveOthers(*engine_, links_.get(), members_, WorkKind::kShortRuns,
                 Encode(ShortRunsOrder{number_, longest_, members_, run, times}), times * engine_->timeout());
  std::atomic<bool> stop = false;
  std::promise<std::vector<Stretches>> made;
  const std::future<void> ended = std::async(std::launch::async, [&] {
    try {
      here_->Run(held, run, times, stop, [&](const std::vector<Stretches>& parts) { made.set_value(parts); });
      if (here_->members().empty()) made.set_value({});
    } catch (...) {
      made.set_exception(std::current_exception());
    }
  });
  std::exception_ptr failure;
  const auto attempt = [&](const auto& part) {
    try {
      part();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  };
  attempt([&] { add(0, made.get_future().get()); });
  for (auto& [process, work] : others) {
    attempt([&, process = process, &work = work] {
      std::vector<Stretches> parts;
      work.Take(Decode(work.Await().answer, parts));
      add(process, parts);
    });
  }
  stop = true;
  for (const auto& [process, work] : others) engine_->group()->remote->StopWork(process, work.given.number);
  ended.wait();
  if (failure) std::rethrow_exception(failure);
}

std::vector<HopTimes> Probe::Hop(HeldEngine& held, const std::vector<std::pair<int, int>>& pairs, int64_t rows,
                                 int rounds) {
  const uint64_t id = links_ == nullptr ? 0 : links_->IdFor(members_);
  const HopsOrder order{number_, longest_, members_, id, pairs, rows, rounds};
  const std::shared_ptr<Fabric> between = id == 0 ? nullptr : links_->For(held, members_);
  auto others =
      GiveOthers(*engine_, links_.get(), members_, WorkKind::kHops, Encode(order), 2 * rounds * engine_->timeout());
  std::exception_ptr failure;
  std::vector<HopTimes> times;
  try {
    times = here_->Hop(held, order, between == nullptr ? held.fabric() : *between);
  } catch (...) {
    failure = std::current_exception();
  }
  for (auto& [process, work] : others) {
    try {
      std::vector<HopTimes> parts;
      work.Take(Decode(work.Await().answer, parts));
      times.insert(times.end(), parts.begin(), parts.end());
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }
  if (!failure) return times;
  if (id != 0) links_->Drop(members_);
  std::rethrow_exception(failure);
}

}  // namespace runahead
