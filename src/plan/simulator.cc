#include "plan/simulator.h"

#include <algorithm>
#include <queue>

#include "base/check.h"
#include "base/units.h"
#include "plan/chain_simulator.h"
#include "plan/phase_work.h"
#include "plan/tensor_parallel.h"

namespace runahead {
namespace {

/// What a rank does next. A layer's steps follow each other in this order; layer -1 is what precedes the first.
enum class Step : unsigned char { kPostReceives, kSendOwn, kWait, kSendArrived, kCompute, kDone };

struct RankState {
  double time = 0;
  int layer = -1;
  int peer = 0;  // number of the step's peers that are done
  Step step = Step::kPostReceives;
  bool waiting = false;  // true until the layer's last transfer is placed
};

struct Event {
  double time;
  int rank;
};
struct Later {
  bool operator()(const Event& a, const Event& b) const {
    return a.time != b.time ? a.time > b.time : a.rank > b.rank;
  }
};

class Phase {
 public:
  Phase(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, const Partition& partition,
        KeepTimeline keep)
      : layers_(shape.layers),
        costs_(costs),
        scheme_(scheme),
        work_(shape, costs, scheme, partition),
        ranks_(partition.ranks()),
        keep_(keep == KeepTimeline::kYes),
        states_(static_cast<size_t>(ranks_)),
        arrival_(static_cast<size_t>(ranks_) * static_cast<size_t>(shape.layers), 0.0),
        missing_(arrival_.size(), 0),
        free_at_(costs.links.resources(), 0.0),
        bytes_through_(free_at_.size(), 0) {
    result_.compute_s.assign(static_cast<size_t>(ranks_), 0.0);
    for (int layer = 0; layer < layers_; ++layer) {
      int first = 0;
      const auto alike = [&](int other) {
        return shape.window(other) == shape.window(layer) && (other + 1 == layers_) == (layer + 1 == layers_);
      };
      while (!alike(first)) ++first;
      alike_.push_back(0);
      ++alike_[static_cast<size_t>(first)];
    }
    for (int layer = 0; layer < layers_; ++layer) {
      for (int rank = 0; rank < ranks_; ++rank) missing_[Slot(rank, layer)] = work_.Senders(rank, layer).count();
    }
    if (costs.links.AnyThread()) {
      const auto n = static_cast<size_t>(ranks_);
      sends_posted_.assign(scheme == Scheme::kRunaheadChain ? n : n * n, 0);
      receives_posted_.assign(sends_posted_.size(), 0);
    }
  }

  Simulation Run() {
    for (int rank = 0; rank < ranks_; ++rank) {
      states_[Index(rank)].time = costs_.start_s;
      queue_.push({costs_.start_s, rank});
    }
    while (!queue_.empty()) {
      const int rank = queue_.top().rank;
      queue_.pop();
      Advance(rank);
    }
    for (const RankState& state : states_) {
      CHECK(state.step == Step::kDone);
      result_.ttft_s = std::max(result_.ttft_s, state.time + costs_.end_s);
    }
    result_.busiest_bytes = *std::max_element(bytes_through_.begin(), bytes_through_.end());
    return std::move(result_);
  }

 private:
  static size_t Index(int rank) { return static_cast<size_t>(rank); }
  [[nodiscard]] size_t Slot(int rank, int layer) const {
    return static_cast<size_t>(layer) * Index(ranks_) + Index(rank);
  }
  [[nodiscard]] size_t PairOf(int from, int to) const {
    return scheme_ == Scheme::kRunaheadChain ? Index(to) : Index(from) * Index(ranks_) + Index(to);
  }

  // ---- The steps
  /// Goes on with `rank` until it must wait for others, or until something else happens first.
  void Advance(int rank) {
    RankState& state = states_[Index(rank)];
    while (true) {
      switch (state.step) {
        case Step::kPostReceives:
          if (!PostReceives(rank, state)) return Queue(rank);
          Next(state, state.layer < 0 ? Step::kCompute : Step::kSendOwn);
          break;
        case Step::kSendOwn:
          if (!SendOwn(rank, state)) return Queue(rank);
          Next(state, Step::kWait);
          break;
        case Step::kWait:
          if (missing_[Slot(rank, state.layer)] > 0) {
            state.waiting = true;
            return;
          }
          EndWait(rank, state);
          Next(state, Step::kSendArrived);
          if (SomethingBefore(state.time)) return Queue(rank);
          break;
        case Step::kSendArrived:
          if (scheme_ == Scheme::kRunaheadChain && rank + 1 < ranks_) Send(rank, rank + 1, state);
          Next(state, Step::kCompute);
          if (SomethingBefore(state.time)) return Queue(rank);
          break;
        case Step::kCompute:
          Compute(rank, state);
          if (state.step == Step::kDone) return;
          return Queue(rank);
        case Step::kDone:
          return;
      }
    }
  }
  static void Next(RankState& state, Step step) {
    state.step = step;
    state.peer = 0;
  }
  void Queue(int rank) { queue_.push({states_[Index(rank)].time, rank}); }
  [[nodiscard]] bool SomethingBefore(double time) const { return !queue_.empty() && queue_.top().time < time; }

  /// False when a copy took so long that others must go on first.
  bool PostReceives(int rank, RankState& state) {
    const int layer = state.layer + 1;
    if (layer == layers_ || sends_posted_.empty()) return true;
    for (const int count = work_.Sources(rank); state.peer < count;) {
      const int from = work_.Source(rank, state.peer++);
      const LinkCost& link = costs_.links.Between(from, rank);
      if (link.mover != Mover::kThread) continue;
      const size_t bytes = work_.Bytes(from, rank, layer);
      if (bytes == 0) continue;
      const size_t pair = PairOf(from, rank);
      receives_posted_[pair] = layer + 1;
      if (sends_posted_[pair] <= layer) continue;
      CopyByThread(from, rank, layer, bytes, link, state);
      Place(rank, layer, state.time);
      if (SomethingBefore(state.time)) return false;
    }
    return true;
  }

  bool SendOwn(int rank, RankState& state) {
    if (sends_posted_.empty() && !keep_) {  // nothing comes between the sends of engines
      SendOwnAtOnce(rank, state.layer, state.time);
      return true;
    }
    for (const int count = work_.Receivers(rank); state.peer < count;) {
      Send(rank, work_.Receiver(rank, state.peer++), state);
      if (SomethingBefore(state.time)) return false;
    }
    return true;
  }

  void Send(int from, int to, RankState& state) {
    const int layer = state.layer;
    const size_t bytes = work_.Bytes(from, to, layer);
    if (bytes == 0) return;
    const LinkCost& link = costs_.links.Between(from, to);
    if (link.mover == Mover::kEngine) {
      const auto [first, second] = costs_.links.ResourcesOf(from, to);
      const double left = Occupy(first, state.time, link.Seconds(bytes));
      double arrived = left;
      bytes_through_[first] += bytes;
      if (second != first) {  // the network between them buffers what arrives while the second is taken
        arrived = Occupy(second, left - link.Seconds(bytes), link.Seconds(bytes));
        bytes_through_[second] += bytes;
      }
      RecordTransfer(from, to, layer, {left, arrived}, link.Seconds(bytes), bytes);
      Place(to, layer, arrived + link.latency_s);
      return;
    }
    const size_t pair = PairOf(from, to);
    sends_posted_[pair] = layer + 1;
    if (receives_posted_[pair] <= layer) return;
    CopyByThread(from, to, layer, bytes, link, state);
    Place(to, layer, state.time + link.latency_s);
  }

  /// All sends of a rank's own rows at `time`, as Send makes them one by one.
  void SendOwnAtOnce(int rank, int layer, double time) {
    for (const RankRange& range : work_.ReceiverRanges(rank, layer)) {
      for (int to = range.begin; to < range.end;) {
        const size_t bytes = work_.Bytes(rank, to, layer);
        const LinkRun run = costs_.links.RunFrom(rank, to, work_.SameBytesToAll(layer) ? range.end : to + 1);
        SendRun(to, layer, bytes, time, run);
        to = run.end;
      }
    }
  }

  /// The sends of one run: what each occupies, and when its rows are there. Times are added up one by one, so that
  /// they are those of single sends to the last bit.
  void SendRun(int to, int layer, size_t bytes, double time, const LinkRun& run) {
    const double seconds = run.cost->Seconds(bytes);
    const double latency = run.cost->latency_s;
    const int count = run.end - to;
    double* const arrival = &arrival_[Slot(to, layer)];
    int* const missing = &missing_[Slot(to, layer)];
    double* const entered = &free_at_[run.second];
    int fewest = count + ranks_;  // sources that some receiver still waits for
    const auto place = [&](int i, double arrived) {
      arrival[i] = std::max(arrival[i], arrived + latency);
      fewest = std::min(fewest, --missing[i]);
    };
    if (run.first_step != 0) {  // a link for each pair
      for (int i = 0; i < count; ++i) place(i, entered[i] = std::max(time, entered[i]) + seconds);
    } else {
      double left = std::max(time, free_at_[run.first]);
      if (run.hosts != nullptr) {
        left = EnterHosts(run, count, seconds, left, place);
      } else if (run.first == run.second) {
        for (int i = 0; i < count; ++i) place(i, left += seconds);
      } else {
        for (int i = 0; i < count; ++i) {
          left += seconds;
          place(i, entered[i] = std::max(left - seconds, entered[i]) + seconds);
        }
      }
      free_at_[run.first] = left;
    }
    for (int i = 0; fewest == 0 && i < count; ++i) {
      if (missing[i] == 0) Wake(to + i, layer);
    }
    CountRun(static_cast<size_t>(count), bytes, layer, run);
  }

  /// Sends that enter the cards of other hosts, one after the other; returns when the last one has left.
  template <typename PlaceOne>
  double EnterHosts(const LinkRun& run, int count, double seconds, double left, const PlaceOne& place) {
    double* const cards = &free_at_[run.second_of_host_0];
    for (int i = 0; i < count;) {
      const int host = run.hosts[i];
      double entered = cards[host];
      for (; i < count && run.hosts[i] == host; ++i) {
        left += seconds;
        entered = std::max(left - seconds, entered) + seconds;
        place(i, entered);
      }
      cards[host] = entered;
    }
    return left;
  }

  /// Bytes are counted in one of the layers that hand over alike, for all of them.
  void CountRun(size_t count, size_t bytes, int layer, const LinkRun& run) {
    result_.events += static_cast<int64_t>(count);
    bytes *= static_cast<size_t>(alike_[static_cast<size_t>(layer)]);
    if (bytes == 0) return;
    for (size_t i = 0; i < count; ++i) {
      bytes_through_[run.first + i * run.first_step] += bytes;
      if (run.first == run.second) continue;
      const size_t second = run.hosts != nullptr ? run.second_of_host_0 + static_cast<size_t>(run.hosts[i])
                                                 : run.second + i * run.second_step;
      bytes_through_[second] += bytes;
    }
  }

  /// The rank of `state` copies.
  void CopyByThread(int from, int to, int layer, size_t bytes, const LinkCost& link, RankState& state) {
    state.time += link.Seconds(bytes);
    const auto [first, second] = costs_.links.ResourcesOf(from, to);
    bytes_through_[first] += bytes;
    if (second != first) bytes_through_[second] += bytes;
    RecordTransfer(from, to, layer, {state.time, state.time}, link.Seconds(bytes), bytes);
  }

  /// Takes a resource for `seconds` once it is free, not before `time`; returns the end.
  double Occupy(size_t resource, double time, double seconds) {
    double& free_at = free_at_[resource];
    free_at = std::max(time, free_at) + seconds;
    return free_at;
  }

  /// The rows of `layer` from one source will be with `to` at `time`.
  void Place(int to, int layer, double time) {
    const size_t slot = Slot(to, layer);
    arrival_[slot] = std::max(arrival_[slot], time);
    if (--missing_[slot] == 0) Wake(to, layer);
  }

  /// All rows of `layer` are on their way to `to`, which goes on if it waits for them.
  void Wake(int to, int layer) {
    RankState& receiver = states_[Index(to)];
    if (!receiver.waiting || receiver.layer != layer) return;
    receiver.waiting = false;
    queue_.push({std::max(receiver.time, arrival_[Slot(to, layer)]), to});
  }

  void EndWait(int rank, RankState& state) {
    const double arrived = arrival_[Slot(rank, state.layer)];
    if (arrived <= state.time) return;
    Record({rank, state.layer, Activity::kWait, state.time, arrived, 0});
    state.time = arrived;
  }

  void Compute(int rank, RankState& state) {
    const double seconds = work_.Seconds(rank, state.layer);
    const bool ends = state.layer + 1 == layers_;
    if (seconds > 0) {
      Record({rank, ends ? state.layer : state.layer + 1, Activity::kCompute, state.time, state.time + seconds, 0});
      result_.compute_s[Index(rank)] += seconds;
      state.time += seconds;
    }
    Next(state, ends ? Step::kDone : Step::kPostReceives);
    ++state.layer;
  }

  // ---- Records
  /// Takes an event whose times are seconds.
  void Record(TimelineEvent event) {
    ++result_.events;
    if (!keep_) return;
    event.begin_ms *= kMsPerSecond;
    event.end_ms *= kMsPerSecond;
    result_.timeline.push_back(event);
  }
  struct Ends {
    double left;
    double arrived;
  };
  void RecordTransfer(int from, int to, int layer, const Ends& ends, double seconds, size_t bytes) {
    Record({from, layer, Activity::kSend, ends.left - seconds, ends.left, bytes, to});
    if (!keep_) return;
    const double end_ms = ends.arrived * kMsPerSecond;
    result_.timeline.push_back({to, layer, Activity::kReceive, end_ms - seconds * kMsPerSecond, end_ms, bytes, from});
  }

  int layers_;
  const ClusterCosts& costs_;
  Scheme scheme_;
  PhaseWork work_;
  int ranks_;
  bool keep_;
  std::vector<RankState> states_;
  std::vector<double> arrival_;        // [layer][rank], of the last rows
  std::vector<int> missing_;           // [layer][rank], sources whose rows are not on their way
  std::vector<int> alike_;             // [layer], layers that hand over like it; 0: an earlier one speaks for it
  std::vector<double> free_at_;        // [resource]
  std::vector<size_t> bytes_through_;  // [resource]
  std::vector<int> sends_posted_;      // [pair], layers whose send a thread posted; empty: no thread moves rows
  std::vector<int> receives_posted_;   // [pair]
  std::priority_queue<Event, std::vector<Event>, Later> queue_;
  Simulation result_;
};

}  // namespace

Simulation Simulate(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, const Partition& partition,
                    KeepTimeline keep) {
  CHECK_GT(shape.layers, 0);
  CHECK_EQ(costs.ranks(), partition.ranks());
  CHECK_EQ(costs.links.ranks(), partition.ranks());
  if (scheme == Scheme::kTensorParallel) return SimulateTensorParallel(shape, costs, partition, keep);
  if (scheme == Scheme::kRunaheadChain && keep == KeepTimeline::kNo && EachLinkAlone(costs.links)) {
    return SimulateChain(shape, costs, partition);
  }
  return Phase(shape, costs, scheme, partition, keep).Run();
}

}  // namespace runahead
