#include "server/metrics.h"

#include <fmt/format.h>
#include <prometheus/client_metric.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <initializer_list>
#include <utility>
#include <vector>

#include "runahead/version.h"

namespace runahead::server {
namespace {

using prometheus::ClientMetric;
using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;
using prometheus::Registry;
using Buckets = Histogram::BucketBoundaries;

constexpr double kMs = 1e-3;  // s

/// 1, 2 and 5 times the powers of ten from `first` to `last`.
Buckets Decades(double first, double last) {
  Buckets bounds;
  for (double decade = first; decade <= last; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) {
      if (decade * step <= last) bounds.push_back(decade * step);
    }
  }
  return bounds;
}

/// Powers of two.
Buckets Doublings(double first, double last) {
  Buckets bounds;
  for (double bound = first; bound <= last; bound *= 2) bounds.push_back(bound);
  return bounds;
}

Histogram& AddHistogram(Registry& registry, const char* name, const char* help, const Buckets& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, bounds);
}

MetricFamily Family(const char* name, const char* help, MetricType type) { return {name, help, type, {}}; }

void Add(MetricFamily& family, double value, std::vector<ClientMetric::Label> labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = value;  // of which the serializer reads the one that the family's type says
  metric.counter.value = value;
  family.metric.push_back(std::move(metric));
}

/// What concerns the whole engine.
void AddEngine(const EngineStatus& engine, std::vector<MetricFamily>& families) {
  const auto add = [&](const char* name, const char* help, MetricType type, double value) {
    families.push_back(Family(name, help, type));
    Add(families.back(), value);
  };
  add("runahead_healthy", "1; 0: nothing is answered any more", MetricType::Gauge, engine.failed ? 0 : 1);
  add("runahead_requests_waiting", "Requests that wait to begin", MetricType::Gauge,
      static_cast<double>(engine.waiting));
  add("runahead_requests_running", "Requests that have begun", MetricType::Gauge,
      static_cast<double>(engine.running));
  add("runahead_preempted_total", "Times that a request made room for an older one", MetricType::Counter,
      static_cast<double>(engine.preempted));
  add("runahead_page_tokens", "Tokens of a page of the KV-cache", MetricType::Gauge,
      static_cast<double>(engine.page_tokens));
}

/// One sample for each rank.
std::vector<MetricFamily> RankFamilies(const EngineStatus& engine) {
  MetricFamily pages = Family("runahead_pages",
                              "Pages of a rank's KV-cache: used by running requests, cached prefixes, "
                              "and all there are",
                              MetricType::Gauge);
  MetricFamily requests =
      Family("runahead_rank_requests", "Requests that a rank reads or answers", MetricType::Gauge);
  MetricFamily busy = Family("runahead_busy_seconds_total", "Time of a rank's steps", MetricType::Counter);
  MetricFamily wait = Family("runahead_wait_seconds_total", "Time in steps that a rank waited for rows of others",
                             MetricType::Counter);
  MetricFamily sent =
      Family("runahead_sent_bytes_total", "Bytes of keys and values that a rank handed over", MetricType::Counter);
  MetricFamily lost = Family("runahead_rank_lost", "1; 0: the rank works", MetricType::Gauge);
  for (size_t i = 0; i < engine.ranks.size(); ++i) {
    const RankStatus& rank = engine.ranks[i];
    const std::string name = fmt::format("{}", i);
    Add(pages, static_cast<double>(rank.pages_used), {{"rank", name}, {"state", "used"}});
    Add(pages, static_cast<double>(rank.pages_cached), {{"rank", name}, {"state", "cached"}});
    Add(pages, static_cast<double>(rank.pages), {{"rank", name}, {"state", "total"}});
    Add(requests, rank.requests, {{"rank", name}});
    Add(busy, rank.busy_s, {{"rank", name}});
    Add(wait, rank.wait_s, {{"rank", name}});
    Add(sent, static_cast<double>(rank.bytes_sent), {{"rank", name}});
    Add(lost, rank.lost ? 1 : 0, {{"rank", name}});
  }
  return {pages, requests, busy, wait, sent, lost};
}

}  // namespace

class Metrics::Parts {
 public:
  Parts() {
    const BuildInfo build = DescribeBuild();
    prometheus::BuildGauge()
        .Name("runahead_build_info")
        .Help("1; the labels say what runs")
        .Register(registry_)
        .Add({{"version", build.version}, {"commit", build.commit}})
        .Set(1);
  }

  void Answered(const RequestRecord& record) {
    const std::string status = record.status == 0 ? "none" : fmt::format("{}", record.status);
    http_requests_.Add({{"route", record.route}, {"status", status}}).Increment();
    if (!record.whole) http_cut_.Increment();
  }

  void SetConnections(int open) { connections_.Set(open); }

  void Ended(FinishReason finish, const RequestStats& stats) {
    requests_.Add({{"finish", std::string(Name(finish))}}).Increment();
    prompt_tokens_.Observe(static_cast<double>(stats.prompt_tokens));
    cached_tokens_.Observe(static_cast<double>(stats.cached_tokens));
    new_tokens_.Observe(static_cast<double>(stats.new_tokens));
    if (stats.new_tokens == 0) return;  // there was no first token to wait for
    queued_.Observe(stats.queued_ms * kMs);
    ttft_.Observe(stats.ttft_ms * kMs);
    if (stats.tpot_ms > 0) tpot_.Observe(stats.tpot_ms * kMs);
    if (stats.predicted_ttft_ms > 0 && stats.ttft_ms > 0) ratio_.Observe(stats.predicted_ttft_ms / stats.ttft_ms);
  }

  [[nodiscard]] std::string Text(const EngineStatus& engine) const {
    std::vector<MetricFamily> families = registry_.Collect();
    AddEngine(engine, families);
    for (MetricFamily& family : RankFamilies(engine)) families.push_back(std::move(family));
    return prometheus::TextSerializer().Serialize(families);
  }

 private:
  const Buckets tokens_ = Doublings(1, 1 << 20);
  Registry registry_;
  prometheus::Family<prometheus::Counter>& http_requests_ = prometheus::BuildCounter()
                                                                .Name("runahead_http_requests_total")
                                                                .Help("HTTP requests by route and status")
                                                                .Register(registry_);
  prometheus::Counter& http_cut_ = prometheus::BuildCounter()
                                       .Name("runahead_http_cut_total")
                                       .Help("HTTP answers that their client did not get whole")
                                       .Register(registry_)
                                       .Add({});
  prometheus::Gauge& connections_ =
      prometheus::BuildGauge().Name("runahead_http_connections").Help("Open connections").Register(registry_).Add({});
  prometheus::Family<prometheus::Counter>& requests_ = prometheus::BuildCounter()
                                                           .Name("runahead_requests_total")
                                                           .Help("Choices of answers that ended, by how")
                                                           .Register(registry_);
  Histogram& ttft_ = AddHistogram(registry_, "runahead_ttft_seconds", "Time to the first token", Decades(1e-3, 1000));
  Histogram& tpot_ = AddHistogram(registry_, "runahead_tpot_seconds", "Mean time per output token after the first",
                                  Decades(1e-4, 10));
  Histogram& queued_ =
      AddHistogram(registry_, "runahead_queued_seconds", "Time until the prompt phase began", Decades(1e-4, 1000));
  Histogram& ratio_ =
      AddHistogram(registry_, "runahead_ttft_predicted_ratio", "Predicted TTFT divided by the measured",
                   {0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4, 2.0, 4.0});
  Histogram& prompt_tokens_ = AddHistogram(registry_, "runahead_prompt_tokens", "Tokens of prompts", tokens_);
  Histogram& cached_tokens_ =
      AddHistogram(registry_, "runahead_cached_tokens", "Tokens of prompts whose rows were in the KV-cache", tokens_);
  Histogram& new_tokens_ = AddHistogram(registry_, "runahead_new_tokens", "Tokens of answers", tokens_);
};

Metrics::Metrics() : parts_(std::make_unique<Parts>()) {}
Metrics::~Metrics() = default;

void Metrics::Answered(const RequestRecord& record) { parts_->Answered(record); }
void Metrics::SetConnections(int open) { parts_->SetConnections(open); }
void Metrics::Ended(FinishReason finish, const RequestStats& stats) { parts_->Ended(finish, stats); }
std::string Metrics::Text(const EngineStatus& engine) const { return parts_->Text(engine); }

}  // namespace runahead::server
