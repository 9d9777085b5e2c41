#include "worker/rank_worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "prefill/prefill.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr const char* kStopped = "stopped as asked";

/// Ends a pass at its next layer once `stop` is set.
class StopExchange final : public Exchange {
 public:
  explicit StopExchange(const std::atomic<bool>* stop) : stop_(stop) {}
  Status LayerReady(int /*layer*/, Stream& /*stream*/) override {
    return stop_ != nullptr && *stop_ ? Status::Failed(kStopped) : Status::Ok();
  }

 private:
  const std::atomic<bool>* stop_;
};

/// `token`, and the `most` likeliest tokens, with the logarithms of their probabilities. logits: [vocab].
void AddLogprobs(std::span<const float> logits, int most, Drawn& drawn) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  const double log_sum = top + std::log(sum);
  const auto logprob = [&](int32_t id) { return static_cast<float>(logits[static_cast<size_t>(id)] - log_sum); };
  drawn.token.logprob = logprob(drawn.token.id);
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto kept = std::min(std::ssize(ids), static_cast<std::ptrdiff_t>(most));
  std::partial_sort(ids.begin(), ids.begin() + kept, ids.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (std::ptrdiff_t i = 0; i < kept; ++i) {
    drawn.likely.push_back({ids[static_cast<size_t>(i)], logprob(ids[static_cast<size_t>(i)])});
  }
}

int64_t DrawsOf(const StepPlan& plan) {
  return std::count_if(plan.chunks.begin(), plan.chunks.end(), [](const ChunkPlan& chunk) { return chunk.draw; });
}

/// Whether the device of `stream` still does what it is told.
bool Works(Stream& stream, std::chrono::duration<double> timeout) noexcept {
  try {
    return stream.Drain(After(timeout)).ok();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

StepResult RankWorker::Run(const StepPlan& plan, Fabric* fabric) noexcept {
  StepResult result;
  result.step = plan.step;
  result.rank = rank_.index();
  const auto begin = Clock::now();
  result.begin_s = std::chrono::duration<double>(begin.time_since_epoch()).count();
  RankTimeline timeline(plan.member, begin);
  std::string error;
  try {
    Prepare(plan);
    int64_t rows = 0;
    for (const ChunkPlan& chunk : plan.chunks) rows += chunk.rows();
    if (rows > 0) {
      Workspace& workspace = rank_.WorkspaceFor(decoder_, rows, std::max<int64_t>(1, DrawsOf(plan)));
      HandedRows sent;
      RankTimeline* const recorded = plan.record_timeline ? &timeline : nullptr;
      const Status status = plan.gang ? RunGang(plan, *fabric, workspace, recorded, sent) : RunBatch(plan, workspace);
      result.wire_bound = sent.bound;
      if (!status.ok()) throw LinkError(fmt::format("rank {}: {}", rank_.index(), status.message()));
      DrawAll(plan, workspace, result);
    }
  } catch (const DeviceError& failure) {  // names the device, which ranks may share
    error = fmt::format("rank {}: {}", rank_.index(), failure.what());
    result.device_failed = !Works(rank_.stream(), timeout_);
  } catch (const LinkError& failure) {
    error = failure.what();
    result.link_failed = true;
  } catch (const std::exception& failure) {
    error = failure.what();
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  result.timeline = timeline.events();
  if (error.empty()) return result;
  result.drawn.clear();
  result.stopped = plan.stop != nullptr && *plan.stop;
  if (fabric != nullptr) fabric->Fail(Status::Failed(error));  // others of the gang wait for this rank's rows
  if (result.stopped && !result.device_failed) return result;
  result.error = std::move(error);
  if (plan.stop != nullptr) *plan.stop = true;  // and give up at their next layer
  return result;
}

void RankWorker::Prepare(const StepPlan& plan) {
  likeliest_ = {};
  for (const SequenceId sequence : plan.ended) samplers_.erase(sequence);
  for (const SamplerPlan& sampler : plan.samplers) {
    Draws draws{Sampler(sampler.options, sampler.logit_bias), sampler.logprobs, sampler.options.temperature == 0};
    draws.sampler.SeePrompt(sampler.prompt);
    for (const int32_t token : sampler.drawn) draws.sampler.Resume(token);
    samplers_.insert_or_assign(sampler.sequence, std::move(draws));
  }
  for (const PageCopy& copy : plan.copies) Copy(copy);
}

void RankWorker::Copy(const PageCopy& copy) {
  for (int layer = 0; layer < cache_.shape().layers; ++layer) {
    const KvSpan from = cache_.Span(layer, copy.from * kPageRows, copy.from * kPageRows + copy.rows);
    const KvSpan to = cache_.Span(layer, copy.to * kPageRows, copy.to * kPageRows + copy.rows);
    rank_.device().Copy(to.k.data(), from.k.data(), from.k.bytes(), rank_.stream());
    rank_.device().Copy(to.v.data(), from.v.data(), from.v.bytes(), rank_.stream());
  }
}

Status RankWorker::RunBatch(const StepPlan& plan, Workspace& workspace) {
  StopExchange stop(plan.stop.get());
  std::vector<Chunk> batch;
  for (const ChunkPlan& chunk : plan.chunks) {
    batch.push_back({.tokens = chunk.tokens,
                     .begin = chunk.begin,
                     .last_layer = chunk.draw ? LastLayer::kLastRow : LastLayer::kKeysAndValues,
                     .tables = &TablesOf(chunk),
                     .cache = KvView(cache_, PageTable(chunk.pages)),
                     .exchange = batch.empty() ? &stop : nullptr});
  }
  if (Status status = decoder_.Forward(batch, workspace, rank_.ops(), rank_.stream()); !status.ok()) return status;
  if (const int64_t draws = DrawsOf(plan); draws > 0 && DrawsGreedily(plan)) {
    likeliest_ = rank_.ops().LikeliestOfMany(workspace.Logits(draws), rank_.stream());
  }
  return rank_.stream().Drain(After(timeout_));
}

bool RankWorker::DrawsGreedily(const StepPlan& plan) const {
  return std::any_of(plan.chunks.begin(), plan.chunks.end(), [this](const ChunkPlan& chunk) {
    return chunk.draw && samplers_.at(chunk.sequence).TakesLikeliest();
  });
}

Status RankWorker::RunGang(const StepPlan& plan, Fabric& fabric, Workspace& workspace, RankTimeline* timeline,
                           HandedRows& sent) {
  const GangPlan& gang = *plan.gang;
  const ChunkPlan& chunk = plan.chunks.front();
  const Partition partition(gang.cuts);
  std::vector<PageTable> pages;
  for (const PageList& list : gang.pages) pages.emplace_back(list);
  RankPrefill job;
  job.tokens = chunk.tokens;
  job.strategy = gang.strategy;
  job.topology = gang.topology;
  job.exchange.rank = plan.member;
  job.exchange.partition = &partition;
  job.exchange.windows = decoder_.spec().windows;
  job.exchange.cache = KvView(cache_, pages[static_cast<size_t>(plan.member)]);
  job.exchange.fabric = &fabric;
  job.exchange.timeout = timeout_;
  job.exchange.timeline = timeline;
  job.exchange.pages = pages;
  job.exchange.held = gang.held;
  job.exchange.wire = gang.wire;
  job.exchange.threads = rank_.threads();
  job.exchange.sent = &sent;
  job.draws = chunk.draw;
  job.decoder = &decoder_;
  job.tables = &TablesOf(chunk);
  job.workspace = &workspace;
  job.ops = &rank_.ops();
  job.stream = &rank_.stream();
  job.slowdown = rank_.slowdown();
  job.work_clock = rank_.work_clock();
  job.given_up = plan.stop.get();
  return PrefillRank(job);
}

void RankWorker::DrawAll(const StepPlan& plan, const Workspace& workspace, StepResult& result) {
  const int64_t draws = DrawsOf(plan);
  if (draws == 0) return;
  const std::span<const int32_t> likeliest = std::exchange(likeliest_, {});
  const TensorView logits = workspace.Logits(draws);
  const auto vocab = static_cast<size_t>(logits.row_elements());
  if (likeliest.empty()) {
    logits_.resize(static_cast<size_t>(draws) * vocab);
    rank_.device().CopyToHost(logits_.data(), logits.data(), logits.bytes(), rank_.stream());
  }
  int64_t row = 0;
  for (const ChunkPlan& chunk : plan.chunks) {
    if (!chunk.draw) continue;
    const int64_t own = row++;
    Draws& draw = samplers_.at(chunk.sequence);
    Drawn drawn;
    drawn.sequence = chunk.sequence;
    const bool chosen = !likeliest.empty() && draw.TakesLikeliest();
    const std::span<const float> values =
        chosen ? std::span<const float>() : LogitsOf(logits, own, likeliest.empty());
    try {
      if (chosen) {
        drawn.token.id = likeliest[static_cast<size_t>(own)];
        if (drawn.token.id < 0) throw DeviceError(kNotANumberInLogits);
      } else {
        drawn.token.id = draw.sampler.Draw(values);
        if (draw.logprobs >= 0) AddLogprobs(values, draw.logprobs, drawn);
      }
      draw.sampler.SeeDrawn(drawn.token.id);
    } catch (const Error& error) {  // of this sequence alone
      drawn.error = fmt::format("rank {}: {}", rank_.index(), error.what());
    }
    result.drawn.push_back(std::move(drawn));
  }
}

std::span<const float> RankWorker::LogitsOf(const TensorView& logits, int64_t row, bool fetched) {
  const auto vocab = static_cast<size_t>(logits.row_elements());
  if (fetched) return std::span(logits_).subspan(static_cast<size_t>(row) * vocab, vocab);
  const TensorView own = logits.Rows(row, row + 1);
  logits_.resize(vocab);
  rank_.device().CopyToHost(logits_.data(), own.data(), own.bytes(), rank_.stream());
  return logits_;
}

}  // namespace runahead
