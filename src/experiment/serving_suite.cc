#include "experiment/serving_suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>

#include "base/deadline.h"
#include "runahead/error.h"
#include "runahead/request.h"
#include "tune/requests.h"

namespace runahead {
namespace {

struct Policy {
  const char* name;
  PrefillOptions options;
};

std::vector<Policy> Policies(int ranks) {
  PrefillOptions alone;
  alone.strategy = Strategy::kSingle;
  PrefillOptions all;
  all.ranks = ranks;
  return {{"gang and spread", {}}, {"every prompt alone", alone}, {"every prompt over all ranks", all}};
}

/// What one request got.
struct Served {
  RequestStats stats;
  bool is_long = false;
  std::vector<int32_t> ids;
};

Served Await(RequestHandle handle, bool is_long) {
  Served served;
  served.is_long = is_long;
  while (true) {
    const std::optional<RequestEvent> event = handle.Next(std::chrono::hours(1));
    if (!event) throw Error("serving: a request gave nothing for an hour");
    if (event->kind == RequestEvent::Kind::kToken) served.ids.push_back(event->token.id);
    if (event->kind != RequestEvent::Kind::kEnd) continue;
    if (!event->error.empty()) throw Error("serving: a request failed: " + event->error);
    served.stats = event->stats;
    return served;
  }
}

Request RequestOf(std::vector<int32_t> prompt, int max_new_tokens, const PrefillOptions& options) {
  Request request;
  request.prompt = std::move(prompt);
  request.generation.max_new_tokens = max_new_tokens;
  request.prefill = options;
  return request;
}

/// Plays a trace. One thread waits for each request.
class Player {
 public:
  Player(const Engine& engine, const PrefillOptions& options) : engine_(engine), options_(options) {}

  std::vector<Served> Play(const std::vector<ServingArrival>& trace) {
    const auto begin = Clock::now();
    std::vector<std::thread> waiting;
    for (const ServingArrival& arrival : trace) {
      std::this_thread::sleep_until(
          begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(arrival.at_s)));
      waiting.emplace_back([this, &arrival] { Serve(arrival); });
    }
    for (std::thread& thread : waiting) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    return std::move(served_);
  }

 private:
  void Serve(const ServingArrival& arrival) {
    try {
      Served first =
          Await(engine_.Submit(RequestOf(arrival.prompt, arrival.max_new_tokens, options_)), arrival.is_long);
      std::vector<int32_t> prompt = arrival.prompt;
      prompt.insert(prompt.end(), first.ids.begin(), first.ids.end());
      prompt.insert(prompt.end(), arrival.second_turn.begin(), arrival.second_turn.end());
      Keep(std::move(first));
      if (arrival.second_turn.empty()) return;
      Keep(Await(engine_.Submit(RequestOf(std::move(prompt), arrival.max_new_tokens, options_)), false));
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  void Keep(Served served) {
    const std::lock_guard lock(mutex_);
    served_.push_back(std::move(served));
  }

  const Engine& engine_;
  const PrefillOptions& options_;
  std::mutex mutex_;
  std::vector<Served> served_;  // guarded by mutex_
  std::exception_ptr failure_;  // guarded by mutex_
};

/// The value that `share` of the sorted values do not exceed.
double Percentile(const std::vector<double>& sorted, double share) {
  const auto index = static_cast<size_t>(share * static_cast<double>(sorted.size() - 1) + 0.5);
  return sorted[index];
}

Json Percentiles(std::vector<double> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {{"mean", sum / static_cast<double>(values.size())},
          {"p50", Percentile(values, 0.5)},
          {"p90", Percentile(values, 0.9)},
          {"p99", Percentile(values, 0.99)},
          {"max", values.back()},
          {"sorted", values}};
}

Json Summary(const std::vector<Served>& all, const char* policy, double seconds) {
  std::vector<double> ttft;
  std::vector<double> long_ttft;
  std::vector<double> tpot;
  std::vector<double> pauses;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t new_tokens = 0;
  int shared = 0;
  for (const Served& served : all) {
    const RequestStats& stats = served.stats;
    ttft.push_back(stats.ttft_ms);
    if (served.is_long) long_ttft.push_back(stats.ttft_ms);
    if (stats.new_tokens > 1) tpot.push_back(stats.tpot_ms);
    if (stats.new_tokens > 1) pauses.push_back(stats.longest_pause_ms);
    prompt_tokens += stats.prompt_tokens;
    cached_tokens += stats.cached_tokens;
    new_tokens += stats.new_tokens;
    shared += stats.members.size() > 1 ? 1 : 0;
  }
  return {{"policy", policy},
          {"requests", all.size()},
          {"over_several_ranks", shared},
          {"seconds", seconds},
          {"ttft_ms", Percentiles(ttft)},
          {"long_ttft_ms", Percentiles(long_ttft)},
          {"tpot_ms", Percentiles(tpot)},
          {"longest_pause_ms", Percentiles(pauses)},
          {"new_tokens_per_s", static_cast<double>(new_tokens) / seconds},
          {"cached_share", static_cast<double>(cached_tokens) / static_cast<double>(prompt_tokens)}};
}

}  // namespace

std::vector<ServingArrival> MakeServingTrace(const ServingPlan& plan, double gap_s, int64_t vocab) {
  constexpr double kShort = 0.6;      // shares of the arrivals
  constexpr double kDocuments = 0.2;  // the rest are long
  std::mt19937_64 random(plan.seed);
  const auto between = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(std::max<int64_t>(1, high - low)));
  };
  const auto unit = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  const auto ids = [&](int64_t count) { return RandomPrompt(count, vocab, random()); };
  const int64_t few = std::max<int64_t>(2, plan.long_tokens / 64);
  const std::vector<int32_t> documents[] = {ids(plan.long_tokens / 2), ids(plan.long_tokens / 2)};
  std::vector<ServingArrival> trace;
  double now = 0;
  for (int i = 0; i < plan.requests; ++i) {
    ServingArrival arrival;
    arrival.at_s = now;
    now -= gap_s * std::log(1 - unit());
    const double kind = unit();
    arrival.max_new_tokens = static_cast<int>(between(8, 48));
    if (kind < kShort) {
      arrival.prompt = ids(between(few, 4 * few));
    } else if (kind < kShort + kDocuments) {
      arrival.prompt = documents[random() % 2];
      const std::vector<int32_t> question = ids(between(few / 2 + 1, few + 1));
      arrival.prompt.insert(arrival.prompt.end(), question.begin(), question.end());
    } else {
      arrival.is_long = true;
      arrival.prompt = ids(plan.long_tokens);
      if (random() % 2 == 0) arrival.second_turn = ids(few);
    }
    trace.push_back(std::move(arrival));
  }
  return trace;
}

Json RunServingSuite(const ServingPlan& plan, const std::function<void(const std::string&)>& say) {
  constexpr double kGapOfALong = 0.35;  // of the time of a long prompt alone: two thirds of the ranks' time are used
  Json policies = Json::array();
  double gap_s = plan.gap_s;
  double alone_ms = 0;
  std::vector<ServingArrival> trace;
  for (size_t i = 0; i < Policies(1).size(); ++i) {
    const Engine engine = plan.load(plan.model, plan.engine);
    const Policy policy = Policies(engine.ranks())[i];
    if (i == 0) {
      // The first prompt also meets what only a first one does.
      const std::vector<int32_t> prompt = RandomPrompt(plan.long_tokens, engine.facts().vocab, plan.seed + 1);
      for (int run = 0; run < 2; ++run) {
        Request request = RequestOf(prompt, 1, {});
        request.reuse_prefix = false;
        alone_ms = Await(engine.Submit(std::move(request)), true).stats.ttft_ms;
      }
      if (gap_s == 0) gap_s = kGapOfALong * alone_ms / 1e3;
      trace = MakeServingTrace(plan, gap_s, engine.facts().vocab);
      say(fmt::format("a long prompt of {} tokens alone takes {:.1f} ms; {} requests, one each {:.1f} ms",
                      plan.long_tokens, alone_ms, plan.requests, gap_s * 1e3));
    }
    say(fmt::format("{} ...", policy.name));
    const auto begin = Clock::now();
    const std::vector<Served> served = Player(engine, policy.options).Play(trace);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    policies.push_back(Summary(served, policy.name, seconds));
  }
  return {{"suite", "serving"},
          {"model", plan.name},
          {"devices", plan.engine.devices},
          {"long_tokens", plan.long_tokens},
          {"seed", plan.seed},
          {"gap_ms", gap_s * 1e3},
          {"alone_ttft_ms", alone_ms},
          {"policies", policies}};
}

}  // namespace runahead
