#include "engine/work_here.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/deadline.h"
#include "runahead/error.h"
#include "wire/bytes.h"

namespace runahead {
namespace {

constexpr size_t kMostKept = 4096;  // sessions, probes and links, each

/// What `order` says. Throws LinkError where it makes no sense.
template <typename Order>
Order Read(const RankWork& work) {
  Order order;
  if (const Status read = Decode(work.order, order); !read.ok()) throw LinkError(read.message());
  return order;
}

template <typename Map>
void CheckRoom(const Map& kept, const char* what) {
  if (kept.size() >= kMostKept) throw LinkError(fmt::format("{} {} are kept already", kept.size(), what));
}

}  // namespace

WorkHere::WorkHere(HeldEngine& held, Answer answer)
    : held_(held), engine_(held.engine()), answer_(std::move(answer)), thread_([this] { Loop(); }) {}

WorkHere::~WorkHere() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    waiting_.clear();
    stopped_ = true;
    for (const auto& [id, links] : links_) links->Fail(Status::Failed("the group's work has ended"));
  }
  changed_.notify_all();
  thread_.join();
}

void WorkHere::Begin(RankWork work) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void WorkHere::Stop(uint64_t number) {
  const std::lock_guard lock(mutex_);
  if (number == under_way_) stopped_ = true;
}

void WorkHere::Loop() {
  while (true) {
    RankWork work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
      if (ending_) return;
      work = std::move(waiting_.front());
      waiting_.pop_front();
      under_way_ = work.number;
      stopped_ = false;
    }
    const auto begin = Clock::now();
    bool answered = false;
    const auto answer = [&](std::string bytes) {
      answered = true;
      const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      answer_({work.number, "", seconds, std::move(bytes), {}});
    };
    try {
      Do(work, answer);
    } catch (const std::exception& error) {
      if (!answered) answer_({work.number, error.what(), 0, {}, {}});
    }
    const std::lock_guard lock(mutex_);
    under_way_ = 0;
  }
}

void WorkHere::Do(const RankWork& work, const std::function<void(std::string)>& answer) {
  switch (static_cast<WorkKind>(work.kind)) {
    case WorkKind::kPhase:
      return answer(RunPhase(work));
    case WorkKind::kToken:
      return answer(RunToken(work));
    case WorkKind::kEndSession:
      sessions_.erase(Read<uint64_t>(work));
      return answer("");
    case WorkKind::kShortRuns:
      return RunShort(work, answer);
    case WorkKind::kHops:
      return answer(RunHops(work));
    case WorkKind::kEndProbe:
      probes_.erase(Read<uint64_t>(work));
      return answer("");
    case WorkKind::kEndLinks: {
      const uint64_t id = Read<uint64_t>(work);
      const std::lock_guard lock(mutex_);
      links_.erase(id);
      return answer("");
    }
  }
  throw LinkError(fmt::format("work of kind {}, which there is none of", work.kind));
}

void WorkHere::CheckMembers(const std::vector<int>& members) const {
  std::set<int> seen;
  for (const int member : members) {
    if (member < 0 || member >= engine_.ranks() || !seen.insert(member).second) {
      throw LinkError(fmt::format("members: rank {} of {}, or it is there twice", member, engine_.ranks()));
    }
  }
}

void WorkHere::CheckTokens(const std::vector<int32_t>& tokens) const {
  const int64_t vocab = engine_.decoder().spec().vocab;
  const auto wrong =
      std::find_if(tokens.begin(), tokens.end(), [&](int32_t token) { return token < 0 || token >= vocab; });
  if (wrong != tokens.end()) throw LinkError(fmt::format("token id {} of a vocabulary of {}", *wrong, vocab));
}

std::shared_ptr<Fabric> WorkHere::LinksOf(uint64_t id, const std::vector<int>& members) {
  if (id == 0) throw LinkError("links: they have no id");
  const auto known = links_.find(id);
  if (known != links_.end()) return known->second;
  CheckRoom(links_, "links");
  std::shared_ptr<Fabric> made =
      engine_.group()->processes->NewLinks(id, members, held_.NewFabric(), engine_.DevicesHere());
  const std::lock_guard lock(mutex_);
  if (ending_) made->Fail(Status::Failed("the group's work has ended"));
  return links_[id] = std::move(made);
}

SessionRanks& WorkHere::SessionOf(uint64_t number, int64_t capacity) {
  std::unique_ptr<SessionRanks>& session = sessions_[number];
  if (session == nullptr) {
    CheckRoom(sessions_, "sessions");
    session = std::make_unique<SessionRanks>(engine_, capacity);
  }
  if (session->capacity() != capacity) {
    throw LinkError(fmt::format("a session of {} tokens with room for {}", capacity, session->capacity()));
  }
  return *session;
}

std::string WorkHere::RunPhase(const RankWork& work) {
  const auto order = Read<PhaseOrder>(work);
  CheckMembers(order.members);
  CheckTokens(order.tokens);
  if (engine_.on_gpus() && !order.wire.empty()) throw LinkError("wire: rows of GPUs travel exact");
  const std::shared_ptr<Fabric> links = LinksOf(order.links, order.members);
  try {
    SessionRanks& session = SessionOf(order.session, order.capacity);
    if (std::ssize(order.tokens) > order.capacity) {
      throw LinkError(fmt::format("{} tokens in a session of {}", order.tokens.size(), order.capacity));
    }
    session.Reserve(held_, order);
    PhaseHere phase(session, held_, order, *links, nullptr, Clock::now());
    phase.Await();
    const HandedRows sent = phase.Sent();
    return Encode(PhaseAnswer{phase.Timeline(), phase.logits(), sent.bytes, sent.bound});
  } catch (const std::exception& error) {  // others wait for rows from here
    links->Fail(Status::Failed(error.what()));
    throw;
  }
}

std::string WorkHere::RunToken(const RankWork& work) {
  const auto order = Read<TokenOrder>(work);
  CheckTokens({order.token});
  SessionRanks& session = SessionOf(order.session, order.capacity);
  if (!session.Has(order.rank) || !session.HasCache(order.rank) || order.position < 1 ||
      order.position >= session.cache(order.rank).capacity()) {
    throw LinkError(fmt::format("token {} of a session that rank {} has no room for", order.position, order.rank));
  }
  std::vector<float> logits;
  session.Append(held_, order.rank, order.token, order.position, logits);
  return Encode(logits);
}

ProbeRanks& WorkHere::ProbeOf(uint64_t number, const std::vector<int>& members, int64_t longest) {
  CheckMembers(members);
  const int64_t most = engine_.decoder().spec().max_positions;
  if (longest < 2 || longest > most) throw LinkError(fmt::format("a probe of {} tokens; {} at most", longest, most));
  std::unique_ptr<ProbeRanks>& probe = probes_[number];
  if (probe == nullptr) {
    CheckRoom(probes_, "probes");
    probe = std::make_unique<ProbeRanks>(held_, members, longest);
  }
  return *probe;
}

void WorkHere::RunShort(const RankWork& work, const std::function<void(std::string)>& answer) {
  const auto order = Read<ShortRunsOrder>(work);
  ProbeRanks& probe = ProbeOf(order.probe, order.members, order.longest);
  if (probe.members().empty()) throw LinkError("a probe without a rank here");
  if (probe.longest() != order.longest) throw LinkError(fmt::format("a probe of {} tokens now", order.longest));
  probe.Run(held_, order.run, order.times, stopped_,
            [&](const std::vector<Stretches>& seen) { answer(Encode(seen)); });
}

std::string WorkHere::RunHops(const RankWork& work) {
  const auto order = Read<HopsOrder>(work);
  ProbeRanks& probe = ProbeOf(order.probe, order.members, order.longest);
  if (probe.longest() != order.longest) throw LinkError(fmt::format("a probe of {} tokens now", order.longest));
  std::vector<int> named;
  for (const auto& [from, to] : order.pairs) {
    named.push_back(from);
    named.push_back(to);
  }
  CheckMembers(named);
  const std::shared_ptr<Fabric> links = LinksOf(order.links, order.members);
  return Encode(probe.Hop(held_, order, *links));
}

}  // namespace runahead
