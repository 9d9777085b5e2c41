#include "engine/session_ranks.h"

#include <fmt/format.h>

#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "engine/engine_group.h"
#include "engine/member_fabric.h"
#include "prefill/prefill.h"
#include "runahead/error.h"
#include "tensor/memory_plan.h"

namespace runahead {

SessionRanks::SessionRanks(EngineState& engine, int64_t capacity)
    : engine_(engine), capacity_(capacity), caches_(static_cast<size_t>(engine.local_ranks())) {
  const Decoder& decoder = engine.decoder();
  if (capacity < 1 || capacity > decoder.spec().max_positions) {
    throw ConfigError(fmt::format("session: capacity must be from 1 to the model's context of {} tokens, got {}",
                                  decoder.spec().max_positions, capacity));
  }
  MemoryPlan plan;
  plan.Add("KV-cache",
           static_cast<size_t>(capacity) * decoder.spec().kv_shape(decoder.compute_dtype()).BytesPerToken());
  plan.CheckFits(fmt::format("a session of {} tokens", capacity), engine.rank(engine.first_rank()).device());
}

void SessionRanks::Reserve(HeldEngine& held, const PhaseOrder& order) {
  const KvShape shape = engine_.decoder().spec().kv_shape(engine_.decoder().compute_dtype());
  const Partition partition(order.cuts);
  std::vector<std::pair<int, int64_t>> missing;  // ranks, and rows of the caches to make
  // One sum for each memory: ranks of one GPU share it, and so do all ranks of the CPU.
  std::map<int, std::pair<MemoryPlan, Device*>> needs;
  std::set<int> tables;  // memories whose tables are counted
  for (int place = 0; place < partition.ranks(); ++place) {
    const int member = order.members[static_cast<size_t>(place)];
    if (!Has(member)) continue;
    Rank& worker = engine_.rank(member);
    auto& [here, device] = needs[worker.gpu().value_or(0)];
    device = &worker.device();
    const auto& cache = caches_[IndexOf(member)];
    const bool last = place + 1 == partition.ranks();
    const int64_t rows = last ? capacity_ : CacheRows(order.strategy, partition, place);
    if (!cache || cache->capacity() < rows) {
      missing.emplace_back(member, rows);
      const int64_t freed = cache ? cache->capacity() : 0;
      here.Add("KV-cache", static_cast<size_t>(rows - freed) * shape.BytesPerToken());
    }
    here.Add("workspace", worker.MissingWorkspaceBytes(engine_.decoder(), partition.rows(place)));
    if (tables.insert(engine_.MemoryOf(member)).second) {
      here.Add("position tables", held.MissingPositionBytes(member, capacity_, partition.tokens()));
    }
  }
  for (const auto& [memory, here] : needs) {
    here.first.CheckFits(
        fmt::format("a prompt of {} tokens and {} more on {} rank{}", partition.tokens(),
                    capacity_ - partition.tokens(), partition.ranks(), partition.ranks() == 1 ? "" : "s"),
        *here.second);
  }
  for (const auto& [member, rows] : missing) {
    caches_[IndexOf(member)].emplace(engine_.rank(member).device(), shape, rows);
  }
  for (const int member : order.members) {
    if (Has(member)) held.PositionsFor(member, capacity_, partition.tokens());
  }
}

void SessionRanks::Append(HeldEngine& held, int rank, int32_t token, int64_t position, std::vector<float>& logits) {
  const PositionTables& tables = held.PositionsFor(rank, capacity_, position + 1);
  Rank& worker = engine_.rank(rank);
  worker
      .Post([&] {
        RunToken(worker,
                 {.tokens = std::span(&token, 1), .begin = position, .tables = &tables, .cache = cache(rank)});
        FetchLogits(worker, logits);
      })
      .get();
}

TensorView SessionRanks::RunToken(Rank& rank, const Chunk& chunk) {
  Workspace& workspace = rank.WorkspaceFor(engine_.decoder(), 1);
  const Status status = engine_.decoder(rank.index()).Forward(chunk, workspace, rank.ops(), rank.stream());
  CHECK(status.ok());  // only an exchange can fail
  return workspace.Logits(1);
}

void SessionRanks::FetchLogits(Rank& rank, std::vector<float>& logits) const {
  const TensorView view = rank.WorkspaceFor(engine_.decoder(), 1).Logits(1);
  logits.resize(static_cast<size_t>(engine_.decoder().spec().vocab));
  rank.device().CopyToHost(logits.data(), view.data(), view.bytes(), rank.stream());
}

PhaseHere::PhaseHere(SessionRanks& session, HeldEngine& held, const PhaseOrder& order, Fabric& links,
                     AllGather* gather, Clock::time_point origin)
    : session_(session),
      engine_(held.engine()),
      order_(order),
      partition_(order.cuts),
      links_(links),
      members_(std::make_unique<MemberFabric>(links, order.members)),
      gather_(gather) {
  for (int place = 0; place < partition_.ranks(); ++place) timelines_.emplace_back(place, origin);
  sent_.resize(timelines_.size());
  for (size_t member = 0; member < order.members.size(); ++member) {
    const int rank = order.members[member];
    if (session.Has(rank)) Start(member, held.PositionsFor(rank, session.capacity(), partition_.tokens()));
  }
}

PhaseHere::~PhaseHere() {
  for (const std::future<void>& done : done_) {
    if (done.valid()) done.wait();
  }
}

void PhaseHere::Start(size_t member, const PositionTables& tables) {
  Rank& rank = engine_.rank(order_.members[member]);
  done_.push_back(rank.Post([this, member, &rank, &tables] {
    try {
      Run(member, rank, tables);
    } catch (const DeviceError& error) {  // names the device, which ranks may share
      const std::string reason = fmt::format("rank {}: {}", rank.index(), error.what());
      Keep(std::make_exception_ptr(DeviceError(reason)), Status::Failed(reason));
    } catch (const std::exception& error) {
      Keep(std::current_exception(), Status::Failed(error.what()));
    }
  }));
}

void PhaseHere::Run(size_t member, Rank& rank, const PositionTables& tables) {
  const auto place = static_cast<int>(member);
  RankPrefill job;
  job.tokens =
      std::span(order_.tokens)
          .subspan(static_cast<size_t>(partition_.begin(place)), static_cast<size_t>(partition_.rows(place)));
  job.strategy = order_.strategy;
  job.topology = order_.topology;
  job.exchange = {place,
                  &partition_,
                  engine_.decoder().spec().windows,
                  session_.cache(rank.index()),
                  members_.get(),
                  engine_.timeout(),
                  order_.record_timeline ? &timelines_[member] : nullptr,
                  gather_,
                  {},
                  {},
                  order_.wire,
                  rank.threads(),
                  &sent_[member]};
  job.decoder = &engine_.decoder(rank.index());
  job.tables = &tables;
  job.workspace = &rank.WorkspaceFor(engine_.decoder(), partition_.rows(place));
  job.ops = &rank.ops();
  job.stream = &rank.stream();
  job.slowdown = rank.slowdown();
  job.work_clock = rank.work_clock();
  job.given_up = &failed_;
  if (const Status status = PrefillRank(job); !status.ok()) {
    throw LinkError(fmt::format("rank {}: {}", rank.index(), status.message()));
  }
  if (place + 1 == partition_.ranks()) session_.FetchLogits(rank, logits_);
}

void PhaseHere::Keep(std::exception_ptr failure, const Status& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
  }
  failed_ = true;
  links_.Fail(reason);
}

void PhaseHere::Await() {
  constexpr auto kLook = std::chrono::milliseconds(200);  // between two looks whether somebody is lost
  for (std::future<void>& done : done_) {
    while (done.wait_for(kLook) != std::future_status::ready) {
      const std::string lost = LostOf(engine_);
      if (!lost.empty()) Keep(std::make_exception_ptr(LinkError(lost)), Status::Failed(lost));
    }
    done.get();
  }
  done_.clear();
  if (failure_) std::rethrow_exception(failure_);
}

HandedRows PhaseHere::Sent() const {
  HandedRows all;
  for (const HandedRows& of_member : sent_) {
    all.bytes += of_member.bytes;
    all.bound = std::max(all.bound, of_member.bound);
  }
  return all;
}

std::vector<TimelineEvent> PhaseHere::Timeline() const {
  std::vector<TimelineEvent> all;
  for (const RankTimeline& timeline : timelines_) {
    all.insert(all.end(), timeline.events().begin(), timeline.events().end());
  }
  return all;
}

}  // namespace runahead
