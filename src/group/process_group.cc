#include "group/process_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "link/fabric_table.h"
#include "runahead/error.h"
#include "wire/bytes.h"

namespace runahead {
namespace {

constexpr int kMostRanks = 4096;  // of all processes together
constexpr auto kSend = std::chrono::seconds(10);

/// What a process says of itself beside the facts.
struct Card {
  int ranks = 0;
  std::string ucx;  // UcxPort::address
};

std::string EncodeCard(const Card& card) {
  ByteWriter out;
  out.Put(card.ranks);
  out.PutText(card.ucx);
  return out.Take();
}

Card DecodeCard(const MemberProcess& member) {
  ByteReader in(member.address);
  Card card;
  card.ranks = in.Get<int>("ranks");
  card.ucx = in.GetText("address of links");
  if (card.ranks < 1 || card.ranks > kMostRanks) in.Refuse(fmt::format("ranks: {}", card.ranks));
  if (const Status end = in.End(); !end.ok()) {
    throw LinkError(fmt::format("process {} on {}: {}", member.rank, member.host, end.message()));
  }
  return card;
}

Place PlaceOf(const GroupOptions& options) {
  Place place;
  place.rank = options.process;
  place.ranks = options.processes;
  place.master_host = options.host;
  place.master_port = options.port;
  return place;
}

void CheckOptions(const GroupOptions& options) {
  if (options.processes < 1 || options.processes > kMostRanks) {
    throw ConfigError(fmt::format("group: expected 1 to {} processes, got {}", kMostRanks, options.processes));
  }
  if (options.process < 0 || options.process >= options.processes) {
    throw ConfigError(
        fmt::format("group: expected a process from 0 to {}, got {}", options.processes - 1, options.process));
  }
  if (!(options.meet_timeout_s > 0 && options.meet_timeout_s <= 1e9)) {
    throw ConfigError(
        fmt::format("group: expected a number of seconds above 0 to meet in, got {}", options.meet_timeout_s));
  }
  if (!(options.lost_after_s >= 0.1 && options.lost_after_s <= 1e6)) {
    throw ConfigError(fmt::format("group: expected 0.1 seconds or more after which a process is lost, got {}",
                                  options.lost_after_s));
  }
}

}  // namespace

ProcessGroup::ProcessGroup(const GroupOptions& options, Facts facts, int own_ranks)
    : process_(options.process), replan_(options.replan), on_change_(options.on_change) {
  CheckOptions(options);
  const Place place = PlaceOf(options);
  port_ = MakeUcxPort({.one_host = place.on_one_host()});
  Meeting meeting = Meet(place, {std::move(facts), EncodeCard({own_ranks, port_->address()})}, options.secret,
                         After(std::chrono::duration<double>(options.meet_timeout_s)));
  members_ = std::move(meeting.members);
  for (auto& channel : meeting.control) control_.push_back(std::move(channel));
  if (replan_) door_ = std::move(meeting.door);
  const std::string& host = members_.at(static_cast<size_t>(process_)).host;
  first_rank_.push_back(0);
  for (const MemberProcess& member : members_) {
    const Card card = DecodeCard(member);
    process_of_.insert(process_of_.end(), static_cast<size_t>(card.ranks), member.rank);
    peers_.insert(peers_.end(), static_cast<size_t>(card.ranks), UcxPeer{card.ucx, member.host});
    first_rank_.push_back(static_cast<int>(process_of_.size()));
    if (member.host != host) continue;
    if (member.rank < process_) ++number_here_;
    ++processes_here_;
  }
  if (ranks() > kMostRanks) throw ConfigError(fmt::format("group: {} ranks; {} at most", ranks(), kMostRanks));
  const auto limit = std::chrono::milliseconds(static_cast<int64_t>(options.lost_after_s * 1e3));
  const auto on_lost = [this](int process, const std::string& /*host*/, const std::string& why) {
    // With replan_ process 0 says in one order who is lost and who is back.
    if (!replan_ || process_ == 0 || process == 0) Lose(process, why);
  };
  heartbeat_ =
      std::make_unique<Heartbeat>(std::move(meeting.heartbeats), on_lost, HeartbeatOptions{limit / 4, limit});
}

ProcessGroup::~ProcessGroup() = default;

std::string ProcessGroup::NameOf(int process) const {
  const int first = FirstRank(process);
  const int last = FirstRank(process + 1) - 1;
  return fmt::format("{} on {}",
                     first == last ? fmt::format("rank {}", first) : fmt::format("ranks {} to {}", first, last),
                     MemberOf(process).host);
}

MemberProcess ProcessGroup::MemberOf(int process) const {
  const std::lock_guard lock(mutex_);
  return members_.at(static_cast<size_t>(process));
}

std::shared_ptr<Channel> ProcessGroup::ControlOf(int process) {
  CHECK_NE(process, process_);
  if (process_ != 0) CHECK_EQ(process, 0);
  const std::lock_guard lock(mutex_);
  return control_.at(static_cast<size_t>(process));
}

void ProcessGroup::Tell(int process, GroupMessage type, std::string_view payload) {
  const std::shared_ptr<Channel> control = ControlOf(process);
  const Status sent = control->Send(static_cast<uint16_t>(type), payload, After(kSend));
  if (!sent.ok()) Lose(process, sent.message(), control.get());
}

std::set<int> ProcessGroup::ProcessesOf(const std::vector<int>& ranks) const {
  std::set<int> processes;
  for (const int rank : ranks) processes.insert(ProcessOf(rank));
  return processes;
}

std::string ProcessGroup::ObstacleTo(const std::set<int>& processes) const {
  if (!replan_ || (process_ != 0 && lost_.contains(0))) return first_lost_;
  for (const int process : processes) {
    if (const auto known = lost_.find(process); known != lost_.end()) return known->second;
  }
  return {};
}

std::shared_ptr<Fabric> ProcessGroup::NewLinks(uint64_t id, const std::vector<int>& members,
                                               std::unique_ptr<Fabric> within, const std::vector<Device*>& devices) {
  CHECK_EQ(std::ssize(devices), RanksOf(process_));
  const std::set<int> processes = ProcessesOf(members);
  const auto between = [&](std::function<void(const Status&)> on_failure) {
    UcxGroup group;
    group.id = id;
    {
      const std::lock_guard lock(mutex_);
      group.peers = peers_;
    }
    for (int rank = 0; rank < ranks(); ++rank) {
      group.peers[static_cast<size_t>(rank)].linked = processes.contains(ProcessOf(rank));
    }
    for (size_t i = 0; i < devices.size(); ++i) {
      group.own.push_back({FirstRank(process_) + static_cast<int>(i), devices[i]});
    }
    group.on_failure = std::move(on_failure);
    return MakeUcxFabric(port_, group);
  };
  std::shared_ptr<Fabric> links = MakeFabricTable(process_of_, process_, std::move(within), between);
  std::string reason;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(links_, [](const Joined& one) { return one.links.expired(); });
    links_.push_back({links, processes});
    reason = ObstacleTo(processes);
  }
  if (!reason.empty()) links->Fail(Status::Failed(reason));
  return links;
}

void ProcessGroup::Register(std::span<std::byte> memory) { port_->Register(memory); }

void ProcessGroup::Forget(std::span<std::byte> memory) { port_->Forget(memory); }

void ProcessGroup::FailLinks(const std::string& reason) {
  for (int process = 0; process < processes(); ++process) FailLinksTo(process, reason);
}

void ProcessGroup::FailLinksTo(int process, const std::string& reason) {
  std::vector<std::shared_ptr<Fabric>> alive;
  {
    const std::lock_guard lock(mutex_);
    for (const Joined& one : links_) {
      if (!replan_ || process == 0 || one.processes.contains(process)) alive.push_back(one.links.lock());
    }
  }
  for (const auto& links : alive) {
    if (links != nullptr) links->Fail(Status::Failed(reason));
  }
}

void ProcessGroup::WhenLost(OnLost on_lost) {
  const std::lock_guard telling(telling_);
  on_lost_ = std::move(on_lost);
  if (!on_lost_) return;
  std::map<int, std::string> lost;
  {
    const std::lock_guard lock(mutex_);
    lost = lost_;
  }
  for (const auto& [process, reason] : lost) on_lost_(process, reason);
}

void ProcessGroup::Lose(int process, const std::string& why, const Channel* through) {
  if (process < 0 || process >= processes() || process == process_) return;
  const std::string reason = fmt::format("{} is lost: {}", NameOf(process), why);
  const std::lock_guard telling(telling_);
  if (through != nullptr && ControlOf(process).get() != through) return;  // another has taken its place
  bool known = false;
  {
    const std::lock_guard lock(mutex_);
    known = coming_.erase(process) > 0;
    if (!known && !lost_.emplace(process, reason).second) return;
    if (first_lost_.empty() && (!replan_ || process == 0 || (process_ == 0 && !on_lost_))) first_lost_ = reason;
  }
  if (!known) FailLinksTo(process, reason);
  // Whoever sends to it or listens to it goes on.
  if (process_ == 0 || process == 0) ControlOf(process)->Shut();
  if (!known && on_lost_) on_lost_(process, reason);
  if (door_ != nullptr) door_->Vacate(process);
  if (known) return;
  if (replan_ && process_ != 0 && process != 0) Report(reason + "; the others go on");
}

std::string ProcessGroup::lost() const {
  const std::lock_guard lock(mutex_);
  return first_lost_;
}

std::optional<int> ProcessGroup::Admit(Deadline deadline) {
  std::optional<Joiner> arrival = door_->Await(deadline);
  if (!arrival) return std::nullopt;
  const int process = arrival->member.rank;
  try {
    SetMember(arrival->member);
  } catch (const LinkError& error) {
    (void)arrival->control->Send(static_cast<uint16_t>(GroupMessage::kEnd), error.what(), After(kSend));
    door_->Vacate(process);
    return std::nullopt;
  }
  {
    const std::lock_guard lock(mutex_);
    coming_.insert(process);
    control_.at(static_cast<size_t>(process)) = std::move(arrival->control);
  }
  heartbeat_->Add(std::move(arrival->heartbeat));
  return process;
}

void ProcessGroup::SetMember(const MemberProcess& member) {
  const Card card = DecodeCard(member);
  if (card.ranks != RanksOf(member.rank)) {
    throw LinkError(fmt::format("process {} on {} has {} ranks, the one that was lost had {}", member.rank,
                                member.host, card.ranks, RanksOf(member.rank)));
  }
  const std::lock_guard lock(mutex_);
  members_.at(static_cast<size_t>(member.rank)) = member;
  const auto first = peers_.begin() + FirstRank(member.rank);
  std::fill(first, first + card.ranks, UcxPeer{card.ucx, member.host});
}

bool ProcessGroup::Join(int process) {
  {
    const std::lock_guard lock(mutex_);
    if (coming_.erase(process) == 0) return false;
    lost_.erase(process);
  }
  Report(NameOf(process) + " is back");
  return true;
}

Status ProcessGroup::Replace(const MemberProcess& member) {
  if (member.rank < 1 || member.rank >= processes() || member.rank == process_) {
    return Status::Failed(fmt::format("process: {} is none that can be back", member.rank));
  }
  try {
    SetMember(member);
  } catch (const LinkError& error) {
    return Status::Failed(error.what());
  }
  bool was_lost = false;
  {
    const std::lock_guard lock(mutex_);
    was_lost = lost_.erase(member.rank) > 0;
  }
  if (was_lost) Report(NameOf(member.rank) + " is back");
  return Status::Ok();
}

void ProcessGroup::Report(const std::string& line) const {
  if (on_change_) on_change_(line);
}

}  // namespace runahead
