#include "worker/short_run.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "prefill/slow_exchange.h"

namespace runahead {
namespace {

/// An arbitrary prompt, the same in every run: attention takes longer over some numbers than over others.
int32_t TokenAt(int64_t position, int64_t vocab) {
  const uint64_t scattered = static_cast<uint64_t>(position + 1) * 0x9E3779B97F4A7C15U >> 33;
  return static_cast<int32_t>(scattered % static_cast<uint64_t>(vocab));
}

/// Notes when each layer's exchange begins, and ends the pass there once it has seen enough of them. A GPU's stream
/// has marks of its own; a CPU rank computes before it comes here, and looks at a clock.
class ProbeExchange final : public PrefillExchange {
 public:
  ProbeExchange(bool on_gpu, WorkClock clock, int last_layer, std::optional<AttentionExtent> extent)
      : on_gpu_(on_gpu), clock_(clock), last_layer_(last_layer), extent_(extent) {}

  void Start(Stream& stream) override { Note(stream); }
  Status LayerReady(int layer, Stream& stream) override {
    Note(stream);
    return layer == last_layer_ ? Status::Failed("enough layers were seen") : Status::Ok();
  }
  Status Finish(Stream& stream) override {
    Note(stream);
    stream.Synchronize();
    return Status::Ok();
  }
  [[nodiscard]] AttentionExtent Extent(int64_t end) const override {
    return extent_.value_or(AttentionExtent{end, CausalWork::kSkip});
  }
  /// Seconds between what was noted: the start, each exchange, and the end where the pass came to it. The stream has
  /// passed all of them.
  [[nodiscard]] std::vector<double> Stretches() const {
    std::vector<double> seconds;
    for (size_t i = 1; i < marks_.size(); ++i) seconds.push_back(marks_[i]->MillisecondsSince(*marks_[i - 1]) / 1e3);
    for (size_t i = 1; i < noted_s_.size(); ++i) seconds.push_back(noted_s_[i] - noted_s_[i - 1]);
    return seconds;
  }

 private:
  void Note(Stream& stream) {
    if (on_gpu_) {
      marks_.push_back(stream.NewMark());
    } else {
      noted_s_.push_back(clock_());
    }
  }

  bool on_gpu_;
  WorkClock clock_;
  int last_layer_;
  std::optional<AttentionExtent> extent_;     // empty: up to the chunk's end
  std::vector<std::unique_ptr<Mark>> marks_;  // marks of a GPU's stream
  std::vector<double> noted_s_;               // times of a CPU rank, s
};

/// The queries' share of the FLOPs of a layer's queries, keys and values.
double QueryShare(const DecoderSpec& spec) {
  const AttentionSize size = spec.attention_size();
  return static_cast<double>(size.query_weights) / static_cast<double>(size.query_weights + size.key_value_weights);
}

}  // namespace

void RunShort(Rank& rank, const Decoder& decoder, const PositionTables& tables, const KvCache& cache,
              const ShortRun& run, WorkClock clock, Stretches* seen) {
  const int64_t rows = run.end - run.begin;
  const int layers = decoder.spec().layers;
  std::vector<int32_t> tokens(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) tokens[static_cast<size_t>(i)] = TokenAt(run.begin + i, decoder.spec().vocab);
  Workspace& workspace = rank.WorkspaceFor(decoder, rows);
  std::optional<AttentionExtent> extent;
  if (run.dense) extent = AttentionExtent{cache.capacity(), CausalWork::kDense};
  auto owned = std::make_unique<ProbeExchange>(rank.gpu().has_value(), clock, run.last_layer, extent);
  const ProbeExchange& probe = *owned;
  std::unique_ptr<PrefillExchange> exchange = std::move(owned);
  if (rank.slowdown() > 1) exchange = MakeSlowExchange(std::move(exchange), rank.slowdown(), clock);
  exchange->Start(rank.stream());
  const LastLayer last = run.last_layer >= layers ? LastLayer::kLastRow : LastLayer::kKeysAndValues;
  const Chunk chunk{.tokens = tokens,
                    .begin = run.begin,
                    .last_layer = last,
                    .tables = &tables,
                    .cache = cache,
                    .exchange = exchange.get()};
  const Status status = decoder.Forward(chunk, workspace, rank.ops(), rank.stream());
  if (status.ok()) CHECK(exchange->Finish(rank.stream()).ok());
  rank.stream().Synchronize();
  if (seen == nullptr) return;
  const std::vector<double> seconds = probe.Stretches();
  seen->before_s.push_back(seconds[0]);
  for (int layer = 1; layer <= std::min(run.last_layer, layers - 1); ++layer) {
    // Before the last exchange no queries are made: they take their share of what the first layer's took.
    const double missing = layer == layers - 1 ? seen->before_s.back() * QueryShare(decoder.spec()) : 0;
    seen->layer_s.push_back(seconds[static_cast<size_t>(layer)] + missing);
  }
  if (last == LastLayer::kLastRow) seen->finish_s.push_back(seconds.back());
}

}  // namespace runahead
