#include "experiment/decode_suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/deadline.h"
#include "base/median.h"
#include "engine/engine_state.h"
#include "experiment/bench_run.h"
#include "experiment/matmul_ceiling.h"
#include "experiment/op_breakdown.h"
#include "model/flops.h"
#include "model/weight_bytes.h"
#include "runahead/error.h"
#include "runahead/request.h"
#include "tune/requests.h"

namespace runahead {
namespace {

constexpr int kCheckedTokens = 8;     // of an answer
constexpr int kCheckedSequences = 4;  // of a batch
constexpr int kSecondTurn = 64;       // tokens

/// The tokens of one answer, and when they came.
struct Answer {
  std::vector<int32_t> ids;
  std::vector<double> at_s;                  // times on a clock that only goes forward
  std::vector<std::vector<float>> logprobs;  // of the likeliest two, where they were asked for
  RequestStats stats;
};

double Now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

RequestEvent NextOf(RequestHandle& handle) {
  std::optional<RequestEvent> event = handle.Next(std::chrono::minutes(10));
  if (!event) throw Error("decode: a request gave nothing for ten minutes");
  if (!event->error.empty()) throw Error("decode: a request failed: " + event->error);
  return std::move(*event);
}

/// Reads `tokens` tokens, or all until the end.
void Read(RequestHandle& handle, int tokens, Answer& answer) {
  while (std::ssize(answer.ids) < tokens) {
    const RequestEvent event = NextOf(handle);
    if (event.kind == RequestEvent::Kind::kEnd) {
      answer.stats = event.stats;
      return;
    }
    if (event.kind != RequestEvent::Kind::kToken) continue;
    answer.at_s.push_back(Now());
    answer.ids.push_back(event.token.id);
    std::vector<float> likely;
    for (const TokenLogprob& token : event.likely) likely.push_back(token.logprob);
    answer.logprobs.push_back(std::move(likely));
  }
}

Request RequestOf(std::vector<int32_t> prompt, int tokens, int logprobs) {
  Request request;
  request.prompt = std::move(prompt);
  request.generation.max_new_tokens = tokens;
  request.logprobs = logprobs;
  request.prefill.strategy = Strategy::kSingle;
  request.reuse_prefix = false;
  return request;
}

/// What one batch at one context showed.
class DecodeRun {
 public:
  DecodeRun(const Engine& engine, const DecodePlan& plan, int batch, int64_t context)
      : engine_(engine), plan_(plan), batch_(batch), context_(context) {
    for (int i = 0; i < batch; ++i) {
      prompts_.push_back(RandomPrompt(context, engine.facts().vocab, plan.seed + static_cast<uint64_t>(i)));
    }
  }

  /// Compares the first tokens of a few answers with those of each alone.
  void Check() {
    const int sequences = std::min(batch_, kCheckedSequences);
    std::vector<Answer> together(static_cast<size_t>(batch_));
    std::vector<RequestHandle> handles;
    for (const std::vector<int32_t>& prompt : prompts_) {
      handles.push_back(engine_.Submit(RequestOf(prompt, kCheckedTokens, 2)));
    }
    for (size_t i = 0; i < handles.size(); ++i) Read(handles[i], kCheckedTokens, together[i]);
    handles.clear();
    for (int i = 0; i < sequences; ++i) {
      // Some of the first ones and some of the last ones.
      const auto index = static_cast<size_t>(i % 2 == 0 ? i / 2 : batch_ - 1 - i / 2);
      Answer alone;
      RequestHandle handle = engine_.Submit(RequestOf(prompts_[index], kCheckedTokens, 2));
      Read(handle, kCheckedTokens, alone);
      Compare(together[index], alone);
    }
  }

  /// Reads all prompts, then times the steps of all answers.
  void Time() {
    // The first prompts to be read get tokens while the last ones are read.
    const int64_t rounds = batch_ * context_ / 2048 + 8;
    const auto most = static_cast<int>(std::min<int64_t>(rounds + plan_.steps, MostTokens()));
    std::vector<RequestHandle> handles;
    const double begin = Now();
    for (const std::vector<int32_t>& prompt : prompts_)
      handles.push_back(engine_.Submit(RequestOf(prompt, most, -1)));
    std::vector<Answer> answers(handles.size());
    for (size_t i = 0; i < handles.size(); ++i) Read(handles[i], 1, answers[i]);
    const double all_read = Now();
    first_ms_.push_back((all_read - begin) * 1e3);
    Answer& last = answers.back();
    Read(handles.back(), std::min(plan_.steps + 1, most), last);
    for (size_t i = 3; i < last.at_s.size(); ++i) step_ms_.push_back((last.at_s[i] - last.at_s[i - 1]) * 1e3);
  }

  /// Another turn behind the first prompt and its answer, both of which are in the cache.
  void TakeSecondTurn() {
    if (context_ + plan_.steps + 2 * kSecondTurn > engine_.facts().max_positions) return;
    Request request = RequestOf(prompts_.front(), 8, -1);
    Answer first;
    RequestHandle handle = engine_.Submit(request);
    Read(handle, INT32_MAX, first);
    std::vector<int32_t> more = prompts_.front();
    more.insert(more.end(), first.ids.begin(), first.ids.end());
    const std::vector<int32_t> question = RandomPrompt(kSecondTurn, engine_.facts().vocab, plan_.seed + 77);
    more.insert(more.end(), question.begin(), question.end());
    request.prompt = std::move(more);
    request.reuse_prefix = true;
    Answer second;
    RequestHandle again = engine_.Submit(std::move(request));
    Read(again, INT32_MAX, second);
    second_ms_.push_back(second.stats.ttft_ms);
    cached_tokens_ = second.stats.cached_tokens;
  }

  [[nodiscard]] Json Result(double weight_bytes, double copy_rate) const {
    const double cached = static_cast<double>(batch_) * static_cast<double>(context_) *
                          static_cast<double>(engine_.facts().kv_bytes_per_token);
    const double bytes = weight_bytes + cached;
    const double ms = MedianOf(step_ms_);
    Json json = {{"batch", batch_},
                 {"context", context_},
                 {"first_tokens_ms", first_ms_},
                 {"first_tokens_ms_median", MedianOf(first_ms_)},
                 {"step_ms", step_ms_},
                 {"step_ms_median", ms},
                 {"tokens_per_s", batch_ * 1e3 / ms},
                 {"bytes", bytes},
                 {"same_ids", same_},
                 {"compared_ids", compared_},
                 {"second_turn_ms", second_ms_},
                 {"second_turn_cached_tokens", cached_tokens_}};
    if (copy_rate > 0) json["share_of_copy_rate"] = bytes / (ms / 1e3) / copy_rate;
    return json;
  }

 private:
  [[nodiscard]] int64_t MostTokens() const { return engine_.facts().max_positions - context_; }

  /// Up to the first token that differs, which must be one that rounding can turn.
  void Compare(const Answer& together, const Answer& alone) {
    const DecoderSpec& spec = StateOf(engine_)->decoder().spec();
    const double allowed = AllowedDifference(spec, StateOf(engine_)->decoder().compute_dtype());
    for (size_t i = 0; i < alone.ids.size(); ++i) {
      ++compared_;
      if (i < together.ids.size() && together.ids[i] == alone.ids[i]) {
        ++same_;
        continue;
      }
      const std::vector<float>& best = alone.logprobs[i];
      // How far the likeliest logit is above the mean, at least.
      const double magnitude = std::max(1.0, best[0] + std::log(static_cast<double>(spec.vocab)));
      const double gap = static_cast<double>(best[0]) - best[1];
      if (gap <= allowed * magnitude && !plan_.engine.deterministic) return;
      throw Error(
          fmt::format("decode: token {} of {} sequences of {} differs from the one alone, whose lead is {:.3g}", i,
                      batch_, context_, gap));
    }
  }

  const Engine& engine_;
  const DecodePlan& plan_;
  int batch_;
  int64_t context_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<double> first_ms_;
  std::vector<double> step_ms_;
  std::vector<double> second_ms_;
  int64_t cached_tokens_ = 0;
  int same_ = 0;
  int compared_ = 0;
};

/// Operations of a layer in a step, us, where there is room for one more cache.
Json LayerOf(const Engine& engine, int batch, int64_t context) {
  Json ops = Json::array();
  const double bytes = static_cast<double>(engine.facts().kv_bytes_per_token) *
                       static_cast<double>(batch * PagesOf(context + 1) * kPageRows);
  if (1.1 * bytes > static_cast<double>(StateOf(engine)->rank(0).device().FreeBytes())) return ops;
  for (const OpShare& share : MeasureStepOps(engine, batch, context)) {
    ops.push_back({{"op", share.op}, {"us", 1e3 * share.ms}, {"bytes", share.bytes}});
  }
  return ops;
}

/// Bytes of the weights that a step of `batch` answers reads.
double WeightBytesOfStep(const Decoder& decoder, int batch) {
  const DecoderSpec& spec = decoder.spec();
  const auto bytes = [&](ExpertsCounted experts) {
    return static_cast<double>(
        WeightBytesOf(spec, decoder.weight_format(), decoder.compute_dtype(), experts).total());
  };
  const double of_one = bytes(ExpertsCounted::kChosen);
  const int64_t others = spec.mixture.experts - spec.mixture.chosen;
  if (others == 0) return of_one;
  const double met = ExpertsMet(spec.mixture.experts, spec.mixture.chosen, batch);
  const double share = (met - static_cast<double>(spec.mixture.chosen)) / static_cast<double>(others);
  return of_one + share * (bytes(ExpertsCounted::kAll) - of_one);
}

}  // namespace

Json RunDecodeSuite(const DecodePlan& plan, const std::function<void(const std::string&)>& say) {
  const Engine engine = plan.load(plan.model, plan.engine);
  const std::shared_ptr<EngineState> state = StateOf(engine);
  const RankDevice device{state->rank(0).gpu()};
  const double copy_rate = device.gpu ? MeasureCopyRate(device) : 0;
  Json runs = Json::array();
  for (const int64_t context : plan.contexts) {
    for (const int batch : plan.batches) {
      say(fmt::format("{} sequences of {} tokens ...", batch, context));
      DecodeRun run(engine, plan, batch, context);
      run.Check();
      for (int repeat = 0; repeat < plan.repeats; ++repeat) {
        run.Time();
        run.TakeSecondTurn();
      }
      runs.push_back(run.Result(WeightBytesOfStep(state->decoder(), batch), copy_rate));
      runs.back()["layer"] = LayerOf(engine, batch, context);
    }
  }
  return {{"suite", "decode"},
          {"model", plan.name},
          {"dtype", engine.facts().dtype},
          {"devices", plan.engine.devices},
          {"deterministic", plan.engine.deterministic},
          {"seed", plan.seed},
          {"copy_rate", copy_rate},
          {"runs", runs}};
}

}  // namespace runahead
