#include "plan/simulator.h"

#include <algorithm>
#include <queue>

#include "base/check.h"
#include "plan/tensor_parallel.h"

namespace runahead {
namespace {

constexpr double kMsPerSecond = 1000;

/// What a rank does next. A layer's steps follow each other in this order; layer -1 is what precedes the first.
enum class Step : unsigned char { kPostReceives, kSendOwn, kWait, kSendArrived, kCompute, kDone };

struct RankState {
  double time = 0;
  int layer = -1;
  int peer = 0;  // number of the step's peers that are done
  Step step = Step::kPostReceives;
  bool waiting = false;  // true until the layer's last transfer is placed
};

/// Seconds of a rank's stretches of compute.
struct RankCompute {
  double before_s = 0;
  double layer_s = 0;
  double pair_s = 0;
  double skipped_s = 0;  // time saved in the last layer, where no queries are projected, s
  int64_t begin = 0;
  int64_t end = 0;
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
      : shape_(shape),
        costs_(costs),
        scheme_(scheme),
        partition_(partition),
        ranks_(partition.ranks()),
        keep_(keep == KeepTimeline::kYes),
        states_(static_cast<size_t>(ranks_)),
        arrival_(static_cast<size_t>(ranks_) * static_cast<size_t>(shape.layers), 0.0),
        missing_(arrival_.size(), 0),
        free_at_(costs.links.resources(), 0.0),
        bytes_through_(free_at_.size(), 0) {
    result_.compute_s.assign(static_cast<size_t>(ranks_), 0.0);
    for (int rank = 0; rank < ranks_; ++rank) compute_.push_back(ComputeOf(rank));
    CountMissing();
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
    return Index(rank) * static_cast<size_t>(shape_.layers) + static_cast<size_t>(layer);
  }
  [[nodiscard]] size_t PairOf(int from, int to) const {
    return scheme_ == Scheme::kRunaheadChain ? Index(to) : Index(from) * Index(ranks_) + Index(to);
  }

  // ---- Who exchanges with whom, in the order of the exchanges
  [[nodiscard]] int SourceCount(int rank) const {
    switch (scheme_) {
      case Scheme::kRunaheadChain:
        return rank > 0 ? 1 : 0;
      case Scheme::kRunaheadDirect:
        return rank;
      case Scheme::kTspDense:
      case Scheme::kTspCausal:
        return ranks_ - 1;
      case Scheme::kSingle:
      case Scheme::kTensorParallel:
        return 0;
    }
    return 0;
  }
  [[nodiscard]] int Source(int rank, int i) const {
    if (scheme_ == Scheme::kRunaheadChain) return rank - 1;
    return i < rank ? i : i + 1;
  }
  [[nodiscard]] int OwnReceiverCount(int rank) const {
    if (scheme_ == Scheme::kRunaheadDirect) return ranks_ - 1 - rank;
    return scheme_ == Scheme::kTspDense || scheme_ == Scheme::kTspCausal ? ranks_ - 1 : 0;
  }
  [[nodiscard]] int OwnReceiver(int rank, int i) const {
    return scheme_ == Scheme::kRunaheadDirect ? rank + 1 + i : (rank + 1 + i) % ranks_;
  }
  [[nodiscard]] size_t BytesBetween(int from, int to, int layer) const {
    return static_cast<size_t>(HandOver(shape_, scheme_, partition_, layer, from, to).rows()) * shape_.RowBytes();
  }
  void CountMissing() {
    for (int rank = 0; rank < ranks_; ++rank) {
      for (int i = 0; i < SourceCount(rank); ++i) {
        const int from = Source(rank, i);
        const int last = shape_.layers - 1;
        const bool alike = shape_.windows.empty();  // true: all layers but the last are alike
        const bool first_moves = BytesBetween(from, rank, 0) > 0;
        for (int layer = 0; layer < shape_.layers; ++layer) {
          const bool known = alike && layer < last;
          if (known ? first_moves : BytesBetween(from, rank, layer) > 0) ++missing_[Slot(rank, layer)];
        }
      }
    }
  }

  // ---- Compute
  [[nodiscard]] RankCompute ComputeOf(int rank) const {
    const RowCost cost = costs_.devices[Index(rank)].At(partition_.rows(rank));
    const double query = 2 * static_cast<double>(shape_.hidden * shape_.q_features());
    const double skipped = cost.before_s * query / (query + shape_.KeyValueFlops());
    return {cost.before_s,          cost.layer_s,        cost.pair_s, std::min(skipped, cost.layer_s),
            partition_.begin(rank), partition_.end(rank)};
  }
  /// Cost of the queries [first, end), in visible pairs.
  [[nodiscard]] double Pairs(int rank, int64_t first, int64_t end, int layer) const {
    const auto seen = static_cast<double>(CausalPairs(first, end, shape_.window(layer)));
    if (scheme_ != Scheme::kTspDense) return seen;
    const auto all = static_cast<double>((end - first) * partition_.tokens());
    return seen + costs_.devices[Index(rank)].masked_pair * (all - seen);
  }
  /// Seconds of compute from the exchange of `layer` (-1: from the start) to the next one, or to the rank's end.
  [[nodiscard]] double StretchSeconds(int rank, int layer) const {
    const RankCompute& compute = compute_[Index(rank)];
    const int last = shape_.layers - 1;
    const double skipped = layer + 1 == last ? compute.skipped_s : 0;
    if (layer < 0) return compute.before_s - skipped;
    if (layer < last) {
      return compute.layer_s - skipped + compute.pair_s * Pairs(rank, compute.begin, compute.end, layer);
    }
    if (rank + 1 < ranks_) return 0;
    const DeviceCost& device = costs_.devices[Index(rank)];
    return device.finish_s + device.finish_pair_s * Pairs(rank, compute.end - 1, compute.end, layer);
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
    if (layer == shape_.layers || sends_posted_.empty()) return true;
    for (const int count = SourceCount(rank); state.peer < count;) {
      const int from = Source(rank, state.peer++);
      const LinkCost& link = costs_.links.Between(from, rank);
      if (link.mover != Mover::kThread) continue;
      const size_t bytes = BytesBetween(from, rank, layer);
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
    for (const int count = OwnReceiverCount(rank); state.peer < count;) {
      Send(rank, OwnReceiver(rank, state.peer++), state);
      if (SomethingBefore(state.time)) return false;
    }
    return true;
  }

  void Send(int from, int to, RankState& state) {
    const int layer = state.layer;
    const size_t bytes = BytesBetween(from, to, layer);
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
    RankState& receiver = states_[Index(to)];
    if (--missing_[slot] > 0 || !receiver.waiting || receiver.layer != layer) return;
    receiver.waiting = false;
    queue_.push({std::max(receiver.time, arrival_[slot]), to});
  }

  void EndWait(int rank, RankState& state) {
    const double arrived = arrival_[Slot(rank, state.layer)];
    if (arrived <= state.time) return;
    Record({rank, state.layer, Activity::kWait, state.time, arrived, 0});
    state.time = arrived;
  }

  void Compute(int rank, RankState& state) {
    const double seconds = StretchSeconds(rank, state.layer);
    const bool ends = state.layer + 1 == shape_.layers;
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

  const WorkShape& shape_;
  const ClusterCosts& costs_;
  Scheme scheme_;
  const Partition& partition_;
  int ranks_;
  bool keep_;
  std::vector<RankCompute> compute_;
  std::vector<RankState> states_;
  std::vector<double> arrival_;        // [rank][layer], of the last rows
  std::vector<int> missing_;           // [rank][layer], sources whose rows are not on their way
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
  return Phase(shape, costs, scheme, partition, keep).Run();
}

}  // namespace runahead
