#include "server/metrics.h"

#include <gtest/gtest.h>

namespace runahead::server {
namespace {

bool Has(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(MetricsTest, TellRequestsAnswersAndRanks) {
  Metrics metrics;
  RequestRecord record;
  record.route = "/v1/completions";
  record.status = 200;
  metrics.Answered(record);
  record.status = 0;
  record.whole = false;
  metrics.Answered(record);
  metrics.SetConnections(3);
  RequestStats stats;
  stats.prompt_tokens = 1000;
  stats.cached_tokens = 900;
  stats.new_tokens = 5;
  stats.ttft_ms = 40;
  stats.predicted_ttft_ms = 50;
  metrics.Ended(FinishReason::kStop, stats);
  metrics.Ended(FinishReason::kCancelled, {});
  EngineStatus engine;
  engine.waiting = 7;
  engine.ranks.resize(2);
  engine.ranks[1].pages = 64;
  engine.ranks[1].busy_s = 1.5;
  engine.ranks[1].bytes_sent = 4096;

  const std::string text = metrics.Text(engine);
  EXPECT_TRUE(Has(text, "runahead_http_requests_total{route=\"/v1/completions\",status=\"200\"} 1"));
  EXPECT_TRUE(Has(text, "runahead_http_requests_total{route=\"/v1/completions\",status=\"none\"} 1"));
  EXPECT_TRUE(Has(text, "runahead_http_cut_total 1"));
  EXPECT_TRUE(Has(text, "runahead_http_connections 3"));
  EXPECT_TRUE(Has(text, "runahead_requests_total{finish=\"stop\"} 1"));
  EXPECT_TRUE(Has(text, "runahead_requests_total{finish=\"cancelled\"} 1"));
  EXPECT_TRUE(Has(text, "runahead_ttft_seconds_count 1"));
  EXPECT_TRUE(Has(text, "runahead_ttft_seconds_bucket{le=\"0.05\"} 1"));
  EXPECT_TRUE(Has(text, "runahead_ttft_predicted_ratio_sum 1.25"));
  EXPECT_TRUE(Has(text, "runahead_cached_tokens_sum 900"));
  EXPECT_TRUE(Has(text, "runahead_healthy 1"));
  EXPECT_TRUE(Has(text, "runahead_requests_waiting 7"));
  EXPECT_TRUE(Has(text, "runahead_pages{rank=\"1\",state=\"total\"} 64"));
  EXPECT_TRUE(Has(text, "runahead_busy_seconds_total{rank=\"1\"} 1.5"));
  EXPECT_TRUE(Has(text, "runahead_sent_bytes_total{rank=\"1\"} 4096"));
  engine.failed = true;
  EXPECT_TRUE(Has(metrics.Text(engine), "runahead_healthy 0"));
}

}  // namespace
}  // namespace runahead::server
