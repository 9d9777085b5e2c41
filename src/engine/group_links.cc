#include "engine/group_links.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "runahead/error.h"

namespace runahead {

uint64_t NewLinksId() {
  std::random_device random;
  uint64_t id = 0;
  while (id == 0) id = uint64_t{random()} << 32 | random();
  return id;
}

RankWorkDone GivenWork::Await() {
  if (given.done.wait_until(After(longest)) != std::future_status::ready) {
    throw LinkError(fmt::format("{}: no answer within {:.3g} s", name, longest.count()));
  }
  RankWorkDone done = given.done.get();
  if (!done.error.empty()) Take(Status::Failed(done.error));
  return done;
}

void GivenWork::Take(const Status& read) const {
  if (read.ok()) return;
  const bool named = read.message().starts_with(name);
  throw LinkError(named ? read.message() : fmt::format("{}: {}", name, read.message()));
}

GivenWork GiveWork(EngineState& engine, int process, WorkKind kind, std::string order,
                   std::chrono::duration<double> planned) {
  constexpr std::chrono::duration<double> kLongest = std::chrono::hours(24 * 365);  // what a clock can still count
  EngineGroup& group = *engine.group();
  const auto sent = Clock::now();
  return {group.processes->NameOf(process),
          group.remote->Give(process, static_cast<uint32_t>(kind), std::move(order)), sent,
          std::min(kLongest, planned + engine.timeout())};
}

GroupLinks::~GroupLinks() {
  while (!kept_.empty()) Drop(std::vector<int>(kept_.begin()->first));
}

std::set<int> GroupLinks::OthersOf(const std::vector<int>& members) const {
  std::set<int> processes;
  for (const int member : members) processes.insert(engine_.group()->processes->ProcessOf(member));
  processes.erase(engine_.group()->processes->process());
  return processes;
}

uint64_t GroupLinks::IdFor(const std::vector<int>& members) {
  if (OthersOf(members).empty()) return 0;
  Kept& kept = kept_[members];
  if (kept.id == 0) kept.id = NewLinksId();
  return kept.id;
}

std::shared_ptr<Fabric> GroupLinks::For(const HeldEngine& held, const std::vector<int>& members) {
  Kept& kept = kept_[members];
  if (kept.id == 0) kept.id = NewLinksId();
  if (kept.here == nullptr) {
    kept.here = engine_.group()->processes->NewLinks(kept.id, members, held.NewFabric(), engine_.DevicesHere());
  }
  return kept.here;
}

void GroupLinks::Drop(const std::vector<int>& members) {
  const auto known = kept_.find(members);
  if (known == kept_.end()) return;
  for (const int process : OthersOf(members)) {
    (void)GiveWork(engine_, process, WorkKind::kEndLinks, EncodeId(known->second.id));
  }
  kept_.erase(known);
}

}  // namespace runahead
