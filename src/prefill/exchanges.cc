#include "prefill/exchanges.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "plan/hand_over.h"
#include "prefill/row_coder.h"
#include "prefill/stream_timeline.h"

namespace runahead {
namespace {

/// A span that was posted, and what a timeline says of it.
struct Posted {
  std::unique_ptr<Transfer> transfer;
  Activity activity = Activity::kSend;
  int layer = 0;
  int peer = 0;
  size_t bytes = 0;
  std::shared_ptr<const EncodedRows> encoded;  // null: the rows of the cache themselves
};

/// What the strategies share: who sends which rows to whom is theirs, posting a layer ahead, waiting and recording is
/// here.
class SpanExchange : public PrefillExchange {
 public:
  explicit SpanExchange(const ExchangeContext& context) : context_(context), marks_(context.timeline) {
    const auto is_lossy = [](WireFormat format) { return format != WireFormat::kExact; };
    if (std::any_of(context.wire.begin(), context.wire.end(), is_lossy)) {
      coder_.emplace(context.cache, context.threads);
    }
  }
  /// What still travels after a failure must not go before the links do.
  ~SpanExchange() override {
    if (finished_) return;
    for (Posted& posted : arriving_) Keep(std::move(posted.encoded));
    for (Posted& posted : leaving_) Keep(std::move(posted.encoded));
  }
  SpanExchange(const SpanExchange&) = delete;
  SpanExchange& operator=(const SpanExchange&) = delete;

  void Start(Stream& stream) override {
    marks_.Start(stream);
    SendExactPrefix(stream);
    SendEncodedPrefix(0, stream);
    PostAllReceives(0);
  }

  Status LayerReady(int layer, Stream& stream) override {
    marks_.EndOf(layer, Activity::kCompute, 0, stream);
    const size_t arriving = arriving_.size();  // the rest is of the next layer
    if (layer + 1 < context_.cache.shape().layers) PostAllReceives(layer + 1);
    DropSent();
    SendOwn(layer, stream);
    SendEncodedPrefix(layer + 1, stream);
    marks_.Skip(stream);
    size_t bytes = 0;
    for (size_t i = 0; i < arriving; ++i) {
      Transfer& transfer = *arriving_[i].transfer;
      if (Status status = transfer.OrderBefore(stream, After(context_.timeout)); !status.ok()) return status;
      bytes += arriving_[i].bytes;
    }
    if (arriving > 0) marks_.EndOf(layer, Activity::kWait, bytes, stream);
    for (size_t i = 0; i < arriving; ++i) {
      if (Status status = TakeFirst(); !status.ok()) return status;
    }
    SendArrived(layer, stream);
    if (coder_) coder_->Forget();
    marks_.Skip(stream);
    return Status::Ok();
  }

  Status Finish(Stream& stream) override {
    const int last_layer = context_.cache.shape().layers - 1;
    marks_.EndOf(last_layer, Activity::kCompute, 0, stream);
    if (Status status = stream.Drain(After(context_.timeout)); !status.ok()) return status;
    marks_.Record();
    for (const auto& posted : leaving_) {
      if (Status status = posted.transfer->Wait(After(context_.timeout)); !status.ok()) return status;
      RecordMoved(posted);
    }
    for (const auto& posted : arrived_) {
      if (Status status = posted.transfer->Wait(After(context_.timeout)); !status.ok()) return status;
      RecordMoved(posted);
    }
    if (coder_ && context_.sent != nullptr) context_.sent->bound = coder_->bound();
    finished_ = true;
    return Status::Ok();
  }

 protected:
  /// Posts, with Receive, what this rank gets in `layer`.
  virtual void PostReceives(int layer) = 0;
  /// Sends, with Send, what may leave before anything arrived.
  virtual void SendOwn(int /*layer*/, Stream& /*stream*/) {}
  /// Sends, with Send, what had to arrive first.
  virtual void SendArrived(int /*layer*/, Stream& /*stream*/) {}

  void Receive(int from, int layer, RowRange rows) {
    const WireFormat format = context_.FormatOf(from, rank());
    if (format != WireFormat::kExact && !rows.empty()) {
      std::shared_ptr<EncodedRows> room = coder_->Room(format, layer, rows.begin, rows.end);
      std::unique_ptr<Transfer> transfer = context_.fabric->Between(from, rank()).Receive(room->Span());
      arriving_.push_back({std::move(transfer), Activity::kReceive, layer, from, room->Span().bytes(), room});
      return;
    }
    ForStraightRows(from, rows, [&](int64_t begin, int64_t end) {
      const KvSpan span = context_.cache.Span(layer, begin, end);
      std::unique_ptr<Transfer> transfer = context_.fabric->Between(from, rank()).Receive(span);
      arriving_.push_back({std::move(transfer), Activity::kReceive, layer, from, span.bytes(), nullptr});
    });
  }

  void Send(int to, int layer, RowRange rows, Stream& stream) {
    const WireFormat format = context_.FormatOf(rank(), to);
    if (format != WireFormat::kExact && !rows.empty()) {
      std::shared_ptr<const EncodedRows> encoded = coder_->Encode(format, layer, rows.begin, rows.end);
      const KvSpan span = encoded->Span();
      return Send(to, span, std::move(encoded), stream);
    }
    ForStraightRows(to, rows, [&](int64_t begin, int64_t end) {
      Send(to, context_.cache.Span(layer, begin, end), nullptr, stream);
    });
  }

  /// Encodes rows that will be sent to `to` in this layer, where that does not send them as they are.
  void EncodeFor(int to, int layer, RowRange rows) {
    const WireFormat format = context_.FormatOf(rank(), to);
    if (format != WireFormat::kExact && !rows.empty()) (void)coder_->Encode(format, layer, rows.begin, rows.end);
  }

  [[nodiscard]] int rank() const { return context_.rank; }
  [[nodiscard]] int ranks() const { return context_.partition->ranks(); }
  [[nodiscard]] const Partition& partition() const { return *context_.partition; }
  [[nodiscard]] LayerReach Reach(int layer) const {
    const int64_t window = context_.windows.empty() ? 0 : context_.windows[static_cast<size_t>(layer)];
    return {window, layer + 1 == context_.cache.shape().layers};
  }

 private:
  /// Rows before the partition's origin that rank `to` gets from the last rank.
  [[nodiscard]] RowRange Prefix(int to, int layer) const {
    if (context_.held.empty()) return {};
    return PrefixHandedOver(partition(), context_.held[static_cast<size_t>(to)], to, Reach(layer));
  }
  [[nodiscard]] bool HasPrefixes() const { return !context_.held.empty() && rank() + 1 == ranks(); }
  /// The last rank's: these rows are there from the start, so they may run ahead by many layers.
  void SendExactPrefix(Stream& stream) {
    if (!HasPrefixes()) return;
    for (int layer = 0; layer < context_.cache.shape().layers; ++layer) {
      for (int to = 0; to + 1 < ranks(); ++to) {
        if (context_.FormatOf(rank(), to) == WireFormat::kExact) Send(to, layer, Prefix(to, layer), stream);
      }
    }
  }
  /// The same where they are encoded, which takes time and memory: a layer ahead.
  void SendEncodedPrefix(int layer, Stream& stream) {
    if (!HasPrefixes() || !coder_ || layer >= context_.cache.shape().layers) return;
    for (int to = 0; to + 1 < ranks(); ++to) {
      if (context_.FormatOf(rank(), to) != WireFormat::kExact) Send(to, layer, Prefix(to, layer), stream);
    }
  }
  void PostAllReceives(int layer) {
    Receive(ranks() - 1, layer, Prefix(rank(), layer));
    PostReceives(layer);
  }

  /// Calls visit(begin, end) for those of `rows` that follow each other here and on `peer`, so that both ends cut
  /// alike.
  template <typename Visit>
  void ForStraightRows(int peer, RowRange rows, const Visit& visit) {
    while (!rows.empty()) {
      int64_t end = context_.cache.pages().StraightEnd(rows.begin, rows.end);
      if (!context_.pages.empty()) {
        end = context_.pages[static_cast<size_t>(peer)].StraightEnd(rows.begin, end);
      }
      visit(rows.begin, end);
      rows.begin = end;
    }
  }

  void Send(int to, const KvSpan& span, std::shared_ptr<const EncodedRows> encoded, Stream& stream) {
    std::unique_ptr<Transfer> transfer = context_.fabric->Between(rank(), to).Send(span, stream);
    if (context_.sent != nullptr) context_.sent->bytes += span.bytes();
    leaving_.push_back({std::move(transfer), Activity::kSend, span.layer, to, span.bytes(), std::move(encoded)});
  }

  /// The first of those that arrive is there.
  Status TakeFirst() {
    Posted posted = std::move(arriving_.front());
    arriving_.pop_front();
    const std::shared_ptr<const EncodedRows> encoded = std::move(posted.encoded);
    if (context_.timeline != nullptr) arrived_.push_back(std::move(posted));
    return encoded == nullptr ? Status::Ok() : coder_->Decode(encoded);
  }

  void Keep(std::shared_ptr<const EncodedRows> encoded) {
    if (encoded != nullptr) context_.fabric->Keep(std::move(encoded));
  }

  /// Frees encoded rows that have left.
  void DropSent() {
    while (!leaving_.empty() && leaving_.front().encoded != nullptr) {
      if (!leaving_.front().transfer->Wait(Clock::now()).ok()) return;
      RecordMoved(leaving_.front());
      leaving_.pop_front();
    }
  }

  void RecordMoved(const Posted& posted) {
    if (context_.timeline == nullptr) return;
    if (const std::optional<MovedAt> moved = posted.transfer->Moved()) {
      context_.timeline->Record(posted.layer, posted.activity, moved->begin, moved->end, posted.bytes, posted.peer);
    }
  }

  ExchangeContext context_;
  StreamTimeline marks_;
  std::deque<Posted> arriving_;
  std::vector<Posted> arrived_;  // kept for the timeline
  std::deque<Posted> leaving_;
  std::optional<RowCoder> coder_;  // nothing: all rows travel as they are
  bool finished_ = false;
};

/// The paper's chain: a prefix of the cache comes from the rank before, a longer one goes to the rank after.
class ChainExchange final : public SpanExchange {
 public:
  using SpanExchange::SpanExchange;

 private:
  void PostReceives(int layer) override {
    if (rank() > 0) Receive(rank() - 1, layer, Rows(rank() - 1, layer));
  }
  void SendOwn(int layer, Stream& /*stream*/) override {
    if (rank() + 1 == ranks()) return;
    const RowRange rows = Rows(rank(), layer);
    EncodeFor(rank() + 1, layer, {std::max(rows.begin, partition().begin(rank())), rows.end});
  }
  void SendArrived(int layer, Stream& stream) override {
    if (rank() + 1 < ranks()) Send(rank() + 1, layer, Rows(rank(), layer), stream);
  }
  [[nodiscard]] RowRange Rows(int from, int layer) const {
    return HandedOver(partition(), Topology::kChain, from, from + 1, Reach(layer));
  }
};

/// Every rank sends its own rows to every later rank.
class DirectExchange final : public SpanExchange {
 public:
  using SpanExchange::SpanExchange;

 private:
  void PostReceives(int layer) override {
    for (int from = 0; from < rank(); ++from) Receive(from, layer, Rows(from, rank(), layer));
  }
  void SendOwn(int layer, Stream& stream) override {
    for (int to = rank() + 1; to < ranks(); ++to) Send(to, layer, Rows(rank(), to, layer), stream);
  }
  [[nodiscard]] RowRange Rows(int from, int to, int layer) const {
    return HandedOver(partition(), Topology::kDirect, from, to, Reach(layer));
  }
};

/// The baseline: an all-gather of every rank's rows in every layer.
class TspExchange final : public SpanExchange {
 public:
  TspExchange(const ExchangeContext& context, CausalWork causal) : SpanExchange(context), causal_(causal) {}

  [[nodiscard]] AttentionExtent Extent(int64_t end) const override {
    return {causal_ == CausalWork::kDense ? partition().tokens() : end, causal_};
  }

 private:
  void PostReceives(int layer) override {
    for (int from = 0; from < ranks(); ++from) {
      if (from != rank()) Receive(from, layer, {partition().begin(from), partition().end(from)});
    }
  }
  void SendOwn(int layer, Stream& stream) override {
    // Each rank starts with its neighbour, so that no receiver is everyone's first.
    for (int i = 1; i < ranks(); ++i) {
      Send((rank() + i) % ranks(), layer, {partition().begin(rank()), partition().end(rank())}, stream);
    }
  }

  CausalWork causal_;
};

/// The baseline by a library's all-gather, which works on the ranks' own streams.
class CollectiveTspExchange final : public PrefillExchange {
 public:
  CollectiveTspExchange(const ExchangeContext& context, CausalWork causal)
      : context_(context), causal_(causal), marks_(context.timeline) {}

  void Start(Stream& stream) override { marks_.Start(stream); }

  Status LayerReady(int layer, Stream& stream) override {
    const Partition& partition = *context_.partition;
    marks_.EndOf(layer, Activity::kCompute, 0, stream);
    Status status = context_.gather->Enqueue(context_.rank, context_.cache, layer, partition.cuts(), stream);
    const int64_t missing = partition.tokens() - partition.rows(context_.rank);
    marks_.EndOf(layer, Activity::kWait, context_.cache.Span(layer, 0, missing).bytes(), stream);
    return status;
  }

  [[nodiscard]] AttentionExtent Extent(int64_t end) const override {
    return {causal_ == CausalWork::kDense ? context_.partition->tokens() : end, causal_};
  }

  Status Finish(Stream& stream) override {
    marks_.EndOf(context_.cache.shape().layers - 1, Activity::kCompute, 0, stream);
    Status status = stream.Drain(After(context_.timeout));
    if (status.ok()) marks_.Record();
    return status;
  }

 private:
  ExchangeContext context_;
  CausalWork causal_;
  StreamTimeline marks_;
};

std::unique_ptr<PrefillExchange> MakeTsp(const ExchangeContext& context, CausalWork causal) {
  if (context.gather != nullptr) return std::make_unique<CollectiveTspExchange>(context, causal);
  return std::make_unique<TspExchange>(context, causal);
}

}  // namespace

std::unique_ptr<PrefillExchange> MakeExchange(Strategy strategy, Topology topology, const ExchangeContext& context) {
  switch (strategy) {
    case Strategy::kTspDense:
      return MakeTsp(context, CausalWork::kDense);
    case Strategy::kTspCausal:
      return MakeTsp(context, CausalWork::kSkip);
    case Strategy::kSingle:  // a partition of one rank: a chain without neighbours
    case Strategy::kRunahead:
      break;
  }
  switch (topology) {
    case Topology::kChain:
      return std::make_unique<ChainExchange>(context);
    case Topology::kDirect:
      return std::make_unique<DirectExchange>(context);
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown topology");
}

}  // namespace runahead
