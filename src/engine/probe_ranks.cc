#include "engine/probe_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <barrier>
#include <exception>
#include <future>
#include <mutex>
#include <utility>

#include "base/deadline.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// The clock of measured compute. Alone, what others take of the processor does not count. In a group it does: a rank
/// may have no more than a share of one.
WorkClock ClockOf(const EngineState& engine, const Rank& rank) {
  return engine.group() == nullptr ? rank.work_clock() : SecondsNow;
}

void Expect(const Status& status) {
  if (!status.ok()) throw LinkError(status.message());
}

/// One end of a pair: `rows` rows go there and one comes back, or the other way round for the second of them.
class HopEnd {
 public:
  HopEnd(Rank& rank, const KvCache& cache, Link& out, Link& in, int64_t rows, std::chrono::duration<double> timeout)
      : rank_(rank), cache_(cache), out_(out), in_(in), rows_(rows), timeout_(timeout) {}

  /// Seconds of each round.
  std::vector<double> Lead(int rounds) {
    std::vector<double> seconds;
    for (int round = 0; round < rounds; ++round) {
      const auto back = in_.Receive(One(round));
      const auto begin = Clock::now();
      const auto there = out_.Send(Many(round), rank_.stream());
      Expect(back->OrderBefore(rank_.stream(), After(timeout_)));
      rank_.stream().Synchronize();
      seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
      Expect(there->Wait(After(timeout_)));
    }
    return seconds;
  }

  void Answer(int rounds) {
    std::unique_ptr<Transfer> next = in_.Receive(Many(0));
    for (int round = 0; round < rounds; ++round) {
      const std::unique_ptr<Transfer> there = std::move(next);
      Expect(there->OrderBefore(rank_.stream(), After(timeout_)));
      if (round + 1 < rounds) next = in_.Receive(Many(round + 1));  // it is known before the next round begins
      const auto back = out_.Send(One(round), rank_.stream());
      Expect(back->Wait(After(timeout_)));
    }
  }

 private:
  [[nodiscard]] int LayerOf(int round) const { return round % cache_.shape().layers; }
  [[nodiscard]] KvSpan Many(int round) const { return cache_.Span(LayerOf(round), 0, rows_); }
  [[nodiscard]] KvSpan One(int round) const { return cache_.Span(LayerOf(round), rows_, rows_ + 1); }

  Rank& rank_;
  const KvCache& cache_;
  Link& out_;
  Link& in_;
  int64_t rows_;
  std::chrono::duration<double> timeout_;
};

}  // namespace

ProbeRanks::ProbeRanks(HeldEngine& held, const std::vector<int>& members, int64_t longest) : longest_(longest) {
  EngineState& engine = held.engine();
  const KvShape shape = engine.decoder().spec().kv_shape(engine.decoder().compute_dtype());
  for (const int member : members) {
    if (member < engine.first_rank() || member >= engine.first_rank() + engine.local_ranks()) continue;
    members_.push_back(member);
    caches_.emplace_back(engine.rank(member).device(), shape, longest);
    tables_.push_back(&held.PositionsFor(member, longest, longest));
  }
}

void ProbeRanks::Run(HeldEngine& held, const ShortRun& run, int times, const std::atomic<bool>& stop,
                     const OnMade& on_made) {
  EngineState& engine = held.engine();
  std::barrier together(static_cast<std::ptrdiff_t>(members_.size()));
  std::atomic<size_t> made{0};
  std::vector<Stretches> seen(members_.size());
  std::vector<std::future<void>> done;
  for (size_t i = 0; i < members_.size(); ++i) {
    done.push_back(engine.rank(members_[i]).Post([&, i] {
      Rank& rank = engine.rank(members_[i]);
      const WorkClock clock = ClockOf(engine, rank);
      together.arrive_and_wait();
      for (int counted = 0; counted < times || !stop;) {
        Stretches* const kept = counted < times ? &seen[i] : nullptr;
        RunShort(rank, engine.decoder(members_[i]), *tables_[i], caches_[i], run, clock, kept);
        if (++counted == times && ++made == members_.size()) on_made(seen);
      }
    }));
  }
  for (std::future<void>& future : done) future.get();
}

std::vector<HopTimes> ProbeRanks::Hop(HeldEngine& held, const HopsOrder& order, Fabric& links) {
  EngineState& engine = held.engine();
  std::vector<HopTimes> times;
  std::mutex mutex;            // of times
  std::exception_ptr failure;  // guarded by mutex
  std::vector<std::future<void>> done;
  const auto post = [&](int own, int peer, bool leads) {
    const auto at = std::find(members_.begin(), members_.end(), own);
    if (at == members_.end()) return;
    const KvCache& cache = caches_[static_cast<size_t>(at - members_.begin())];
    Link& out = links.Between(own, peer);
    Link& in = links.Between(peer, own);
    done.push_back(engine.rank(own).Post([&, own, peer, leads] {
      try {
        HopEnd end(engine.rank(own), cache, out, in, order.rows, engine.timeout());
        if (!leads) return end.Answer(order.rounds);
        HopTimes seen{own, peer, end.Lead(order.rounds)};
        const std::lock_guard lock(mutex);
        times.push_back(std::move(seen));
      } catch (const std::exception& error) {
        links.Fail(Status::Failed(fmt::format("rank {}: {}", own, error.what())));
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
      }
    }));
  };
  for (const auto& [from, to] : order.pairs) {
    post(from, to, true);
    post(to, from, false);
  }
  for (std::future<void>& future : done) future.get();
  if (failure) std::rethrow_exception(failure);
  return times;
}

}  // namespace runahead
