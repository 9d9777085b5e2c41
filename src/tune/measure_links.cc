#include <algorithm>
#include <barrier>

#include "link/link.h"
#include "tune/measure_profile.h"

namespace runahead {
namespace {

constexpr int kCopies = 15;            // copies of each size
constexpr int64_t kEnoughRows = 8192;  // most rows of a timed copy
constexpr std::chrono::duration<double> kPatience{30};

/// What one rank saw of the copies of one size.
struct CopyTimes {
  std::vector<double> moving_s;
  std::vector<double> waking_s;  // time from the last byte until the receiver goes on, s
};

double SecondsBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// Waits without giving up the processor, so that another rank has fallen asleep over its own wait.
void Spin(std::chrono::duration<double> duration) {
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(duration);
  while (Clock::now() < end) {
  }
}

/// The rows that member `i` of `n` in a ring sends, `rows` of them: others than those that it receives meanwhile.
KvSpan SentRows(KvCache& cache, int layer, int i, int n, int64_t rows) {
  const int64_t part = n % 2 == 1 && i == n - 1 ? 2 : i % 2;
  return cache.Span(layer, part * rows, (part + 1) * rows);
}

/// All members send `rows` rows to the next one at once, again and again, into other layers each time.
std::vector<CopyTimes> CopyAtOnce(HeldEngine& held, std::span<const int> members, std::vector<KvCache>& caches,
                                  int64_t rows) {
  constexpr std::chrono::duration<double> kUntilAsleep{2e-4};
  EngineState& engine = held.engine();
  const auto n = static_cast<int>(members.size());
  const std::unique_ptr<Fabric> fabric = held.NewFabric(/*limited=*/false);
  fabric->KeepTimes(true);
  std::barrier together(n);
  for (int i = 0; i < n; ++i) {  // made before the ranks wait for each other
    (void)fabric->Between(members[static_cast<size_t>(i)], members[static_cast<size_t>((i + 1) % n)]);
  }
  std::vector<CopyTimes> times(members.size());
  std::vector<std::future<void>> done;
  for (int i = 0; i < n; ++i) {
    done.push_back(engine.rank(members[static_cast<size_t>(i)]).Post([&, i] {
      Rank& rank = engine.rank(members[static_cast<size_t>(i)]);
      KvCache& cache = caches[static_cast<size_t>(i)];
      const int before = (i + n - 1) % n;
      Link& from_before = fabric->Between(members[static_cast<size_t>(before)], members[static_cast<size_t>(i)]);
      Link& to_next = fabric->Between(members[static_cast<size_t>(i)], members[static_cast<size_t>((i + 1) % n)]);
      for (int copy = 0; copy < kCopies; ++copy) {
        const int layer = copy % cache.shape().layers;
        const auto received = from_before.Receive(SentRows(cache, layer, before, n, rows));
        const KvSpan own = SentRows(cache, layer, i, n, rows);
        together.arrive_and_wait();
        const bool sleeps = i % 2 == 1;  // these wait before the others send
        if (!sleeps) Spin(kUntilAsleep);
        std::unique_ptr<Transfer> sent;
        if (!sleeps) sent = to_next.Send(own, rank.stream());
        CHECK(received->OrderBefore(rank.stream(), After(kPatience)).ok());
        const auto awake = Clock::now();
        if (sleeps) sent = to_next.Send(own, rank.stream());
        CHECK(sent->Wait(After(kPatience)).ok());
        CHECK(received->Wait(After(kPatience)).ok());
        if (const std::optional<MovedAt> moved = received->Moved()) {
          CopyTimes& mine = times[static_cast<size_t>(i)];
          mine.moving_s.push_back(SecondsBetween(moved->begin, moved->end));
          if (sleeps) mine.waking_s.push_back(std::max(0.0, SecondsBetween(moved->end, awake)));
        }
        together.arrive_and_wait();
      }
    }));
  }
  for (std::future<void>& future : done) future.get();
  return times;
}

/// Seconds that one row takes between the streams of two GPUs, there and back many times, all enqueued ahead: from
/// the work before it to the work behind it.
double SecondsPerHop(HeldEngine& held, std::span<const int> members, std::vector<KvCache>& caches) {
  constexpr int kRounds = 20;
  EngineState& engine = held.engine();
  const std::unique_ptr<Fabric> fabric = held.NewFabric(/*limited=*/false);
  (void)fabric->Between(members[0], members[1]);  // made before the ranks wait for each other
  (void)fabric->Between(members[1], members[0]);
  double seconds = 0;
  std::vector<std::future<void>> done;
  for (int i = 0; i < 2; ++i) {
    done.push_back(engine.rank(members[static_cast<size_t>(i)]).Post([&, i] {
      Stream& stream = engine.rank(members[static_cast<size_t>(i)]).stream();
      const KvCache& cache = caches[static_cast<size_t>(i)];
      Link& there = fabric->Between(members[static_cast<size_t>(i)], members[static_cast<size_t>(1 - i)]);
      Link& back = fabric->Between(members[static_cast<size_t>(1 - i)], members[static_cast<size_t>(i)]);
      std::vector<std::unique_ptr<Transfer>> sent;
      const auto receive = [&] {
        CHECK(back.Receive(cache.Span(0, 1 - i, 2 - i))->OrderBefore(stream, After(kPatience)).ok());
      };
      const std::unique_ptr<Mark> begin = stream.NewMark();
      for (int round = 0; round < kRounds; ++round) {
        if (i == 1) receive();
        sent.push_back(there.Send(cache.Span(0, i, i + 1), stream));
        if (i == 0) receive();
      }
      const std::unique_ptr<Mark> end = stream.NewMark();
      CHECK(stream.Drain(After(kPatience)).ok());
      for (const auto& transfer : sent) CHECK(transfer->Wait(After(kPatience)).ok());
      if (i == 0) seconds = end->MillisecondsSince(*begin) / 1e3 / (2 * kRounds);
    }));
  }
  for (std::future<void>& future : done) future.get();
  return seconds;
}

}  // namespace

LinkProbe::LinkProbe(HeldEngine& held, std::vector<int> members, int64_t longest)
    : members_(std::move(members)), many_(std::clamp<int64_t>(longest / 2, 2, kEnoughRows)) {
  EngineState& engine = held.engine();
  const KvShape shape = engine.decoder().spec().kv_shape(engine.decoder().compute_dtype());
  for (const int member : members_) caches_.emplace_back(engine.rank(member).device(), shape, 3 * many_);
}

LinkSamples LinkProbe::Measure(HeldEngine& held) {
  const bool on_gpus = held.engine().on_gpus();
  LinkSamples seen;
  seen.mover = on_gpus ? Mover::kEngine : Mover::kThread;
  seen.many = many_;
  seen.row_bytes = caches_.front().Span(0, 0, 1).bytes();
  const auto copy = [&](int64_t rows) {
    CopyTimes all;
    for (const CopyTimes& times : CopyAtOnce(held, members_, caches_, rows)) {
      all.moving_s.insert(all.moving_s.end(), times.moving_s.begin(), times.moving_s.end());
      all.waking_s.insert(all.waking_s.end(), times.waking_s.begin(), times.waking_s.end());
    }
    return all;
  };
  CopyTimes times = copy(1);
  seen.one_row.push_back(TypicalSeconds(std::move(times.moving_s)));
  seen.waking.push_back(on_gpus ? std::max(0.0, SecondsPerHop(held, members_, caches_) - seen.one_row.back())
                                : TypicalSeconds(std::move(times.waking_s)));
  seen.many_rows.push_back(TypicalSeconds(copy(many_).moving_s));
  return seen;
}

}  // namespace runahead
