#include "group/remote_ranks.h"

#include <fmt/format.h>

#include <algorithm>

#include "group/step_check.h"
#include "runahead/error.h"
#include "wire/step_messages.h"

namespace runahead {
namespace {

constexpr auto kLook = std::chrono::seconds(1);  // between two looks whether the end has come

}  // namespace

RemoteRanks::RemoteRanks(std::shared_ptr<ProcessGroup> group, int64_t vocab)
    : group_(std::move(group)), vocab_(vocab) {
  try {
    for (int process = 1; process < group_->processes(); ++process) {
      const std::vector<RankFacts> ranks = AwaitReady(process);
      facts_.insert(facts_.end(), ranks.begin(), ranks.end());
    }
  } catch (const Error& error) {
    End(error.what());
    throw;
  }
}

std::vector<RankFacts> RemoteRanks::AwaitReady(int process) {
  const std::shared_ptr<Channel> control = group_->ControlOf(process);
  std::optional<WireMessage> message;
  while (!message) {  // loading takes as long as it takes: who is lost meanwhile is noticed
    const Status heard = control->Receive(message, After(kLook));
    if (ending_) throw LinkError("the group's work has ended");
    if (const std::string lost = group_->lost(); !listening_ && !lost.empty()) throw LinkError(lost);
    if (!heard.ok()) throw LinkError(fmt::format("{} is lost: {}", group_->NameOf(process), heard.message()));
  }
  if (message->type == static_cast<uint16_t>(GroupMessage::kTrouble)) {
    throw LinkError(fmt::format("{}: {}", group_->NameOf(process), message->payload));
  }
  std::vector<RankFacts> ranks;
  Status read = message->type == static_cast<uint16_t>(GroupMessage::kReady)
                    ? Decode(message->payload, ranks)
                    : Status::Failed(fmt::format("a message of type {} came first", message->type));
  if (read.ok() && std::ssize(ranks) != group_->RanksOf(process)) {
    read = Status::Failed(fmt::format("it has {} ranks and told of {}", group_->RanksOf(process), ranks.size()));
  }
  if (!read.ok()) throw LinkError(fmt::format("{}: {}", group_->NameOf(process), read.message()));
  return ranks;
}

RemoteRanks::~RemoteRanks() { StopListening(); }

void RemoteRanks::StopListening() {
  End("");
  group_->WhenLost({});
  if (door_.joinable()) door_.join();
  for (auto& [process, listener] : listeners_) listener.join();
  listeners_.clear();
}

void RemoteRanks::End(const std::string& reason) {
  if (ending_.exchange(true)) return;
  for (int process = 1; process < group_->processes(); ++process) {
    group_->Tell(process, GroupMessage::kEnd, reason);
  }
}

void RemoteRanks::Listen(Answer answer, OnLost on_lost, OnBack on_back) {
  answer_ = std::move(answer);
  on_lost_ = std::move(on_lost);
  on_back_ = std::move(on_back);
  listening_ = true;
  for (int process = 1; process < group_->processes(); ++process) {
    listeners_.emplace(process, [this, process] { Hear(process); });
  }
  group_->WhenLost([this](int process, const std::string& reason) { AnswerFor(process, reason); });
  if (group_->replan()) door_ = std::thread([this] { KeepDoor(); });
}

void RemoteRanks::KeepDoor() {
  while (!ending_) {
    const std::optional<int> process = group_->Admit(After(kLook));
    if (!process) continue;
    std::thread& listener = listeners_.at(*process);
    listener.join();  // it heard the end of the one that was lost
    listener = std::thread([this, process] { Welcome(*process); });
  }
}

void RemoteRanks::Welcome(int process) {
  try {
    on_back_(process, AwaitReady(process));
  } catch (const LinkError& error) {
    return group_->Lose(process, error.what());
  }
  Hear(process);
}

bool RemoteRanks::IsLost(int process) {
  const std::lock_guard lock(mutex_);
  return lost_.contains(process);
}

void RemoteRanks::TellOthers(int except, GroupMessage type, std::string_view payload) {
  for (int process = 1; process < group_->processes(); ++process) {
    if (process != except && !IsLost(process)) group_->Tell(process, type, payload);
  }
}

void RemoteRanks::TellLost(int process, const std::string& reason) {
  TellOthers(process, GroupMessage::kLost, Encode(LostProcess{process, reason}));
}

bool RemoteRanks::Join(int process) {
  {
    const std::lock_guard lock(mutex_);  // a second loss comes behind it
    if (!group_->Join(process)) return false;
    lost_.erase(process);
  }
  for (const PositionRoom& room : rooms_) group_->Tell(process, GroupMessage::kReserve, Encode(room));
  for (int other = 1; other < group_->processes(); ++other) {
    if (other != process && !IsLost(other)) {
      group_->Tell(process, GroupMessage::kBack, Encode(group_->MemberOf(other)));
    }
  }
  TellOthers(process, GroupMessage::kBack, Encode(group_->MemberOf(process)));
  return true;
}

void RemoteRanks::Hear(int process) {
  const std::shared_ptr<Channel> control = group_->ControlOf(process);
  while (true) {
    std::optional<WireMessage> message;
    Status status = control->Receive(message, After(kLook));
    if (status.ok() && message) status = Take(process, *message);
    if (!status.ok()) return group_->Lose(process, status.message(), control.get());
    if (message || !ending_) continue;
    const std::lock_guard lock(mutex_);
    if (told_.empty()) return;
  }
}

RemoteRanks::Given RemoteRanks::Give(int process, uint32_t kind, std::string order) {
  Given given;
  {
    const std::lock_guard lock(mutex_);
    given.number = ++works_;
    std::promise<RankWorkDone> promise;
    given.done = promise.get_future();
    if (const auto known = lost_.find(process); known != lost_.end() || ending_) {
      promise.set_value({given.number, ending_ ? "the group's work has ended" : known->second, 0, {}, {}});
      return given;
    }
    given_.emplace(std::pair(process, given.number), std::move(promise));
  }
  group_->Tell(process, GroupMessage::kWork, Encode(RankWork{given.number, kind, std::move(order)}));
  return given;
}

void RemoteRanks::StopWork(int process, uint64_t number) {
  if (!IsLost(process)) group_->Tell(process, GroupMessage::kWorkStop, EncodeId(number));
}

Status RemoteRanks::TakeWork(int process, const WireMessage& message) {
  RankWorkDone done;
  if (Status read = Decode(message.payload, done); !read.ok()) return read;
  done.came = Clock::now();
  const std::lock_guard lock(mutex_);
  const auto given = given_.find({process, done.number});
  if (given == given_.end()) return Status::Failed(fmt::format("it did work {}, which nobody gave it", done.number));
  given->second.set_value(std::move(done));
  given_.erase(given);
  return Status::Ok();
}

Status RemoteRanks::Take(int process, const WireMessage& message) {
  if (message.type == static_cast<uint16_t>(GroupMessage::kWorkDone)) return TakeWork(process, message);
  if (message.type != static_cast<uint16_t>(GroupMessage::kResult)) {
    return Status::Failed(fmt::format("it sent a message of type {}", message.type));
  }
  StepResult result;
  if (Status read = DecodeStepResult(message.payload, result); !read.ok()) return read;
  if (result.device_failed && group_->replan()) return Status::Failed(result.error);
  {
    const std::lock_guard lock(mutex_);
    const auto found = told_.find({result.rank, result.step});
    if (found == told_.end() || group_->ProcessOf(result.rank) != process) {
      return Status::Failed(
          fmt::format("it answered step {} of rank {}, which nobody asked for", result.step, result.rank));
    }
    const Told& told = found->second;
    if (Status fits = CheckStepResult(result, result.rank, told.draws, vocab_); !fits.ok()) return fits;
    if (told.stop != nullptr && !result.error.empty() && !result.device_failed) {
      // The first of a gang to fail says why; the others stopped for it.
      if (told.stop->exchange(true)) {
        result.stopped = true;
        result.error.clear();
      }
    }
    told_.erase(found);
  }
  // The other host's clock is not this one's.
  result.begin_s = std::chrono::duration<double>(Clock::now().time_since_epoch()).count() - result.seconds;
  answer_(std::move(result));
  return Status::Ok();
}

void RemoteRanks::AnswerFor(int process, const std::string& reason) {
  std::vector<StepResult> results;
  {
    const std::lock_guard lock(mutex_);
    lost_.emplace(process, reason);
    for (auto given = given_.begin(); given != given_.end();) {
      if (given->first.first != process) {
        ++given;
        continue;
      }
      given->second.set_value({given->first.second, reason, 0, {}, {}});
      given = given_.erase(given);
    }
    for (auto told = told_.begin(); told != told_.end();) {
      const auto [rank, step] = told->first;
      if (group_->ProcessOf(rank) != process) {
        ++told;
        continue;
      }
      StepResult result;
      result.step = step;
      result.rank = rank;
      result.error = reason;
      result.lost = group_->replan();
      result.device_failed = !result.lost;
      results.push_back(std::move(result));
      told = told_.erase(told);
    }
  }
  if (group_->replan() && !ending_) group_->Report(reason + "; the others go on");
  on_lost_(process, reason);
  for (StepResult& result : results) answer_(std::move(result));
}

void RemoteRanks::Post(int rank, const StepPlan& plan, uint64_t links) {
  const int process = group_->ProcessOf(rank);
  Told told;
  told.stop = plan.stop;
  for (const ChunkPlan& chunk : plan.chunks) {
    if (chunk.draw) told.draws.push_back(chunk.sequence);
  }
  std::string lost;
  {
    const std::lock_guard lock(mutex_);
    const auto known = lost_.find(process);
    if (known == lost_.end()) {
      told_.emplace(Key{rank, plan.step}, std::move(told));
    } else {
      lost = known->second;
    }
  }
  if (lost.empty()) return group_->Tell(process, GroupMessage::kStep, EncodeStep(rank, links, plan));
  StepResult result;
  result.step = plan.step;
  result.rank = rank;
  result.error = lost;
  result.lost = group_->replan();
  result.device_failed = !result.lost;
  answer_(std::move(result));
}

void RemoteRanks::Reserve(const PositionRoom& room) {
  rooms_.push_back(room);
  TellOthers(0, GroupMessage::kReserve, Encode(room));
}

void RemoteRanks::Forget(uint64_t links) { TellOthers(0, GroupMessage::kForget, EncodeId(links)); }

void RemoteRanks::PassStops() {
  std::vector<StepName> stopping;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [key, told] : told_) {
      if (told.stopping || told.stop == nullptr || !*told.stop) continue;
      told.stopping = true;
      stopping.push_back({key.first, key.second});
    }
  }
  for (const StepName& name : stopping) group_->Tell(group_->ProcessOf(name.rank), GroupMessage::kStop, Encode(name));
}

}  // namespace runahead
