#include "protocol/status_json.h"

#include <fmt/format.h>

#include "protocol/json_text.h"

namespace runahead::protocol {
namespace {

std::string RankJson(const RankStatus& rank) {
  return fmt::format(
      R"({{"device":{},"pages":{},"pages_used":{},"pages_cached":{},"doing":"{}","requests":{},"busy_s":{},)"
      R"("wait_s":{},"bytes_sent":{},"lost":{}}})",
      Quoted(rank.device), rank.pages, rank.pages_used, rank.pages_cached, Name(rank.doing), rank.requests,
      NumberText(rank.busy_s), NumberText(rank.wait_s), rank.bytes_sent, rank.lost);
}

std::string TotalsJson(const RequestTotals& totals) {
  return fmt::format(
      R"({{"requests":{},"failed":{},"cancelled":{},"prompt_tokens":{},"cached_tokens":{},"new_tokens":{}}})",
      totals.requests, totals.failed, totals.cancelled, totals.prompt_tokens, totals.cached_tokens,
      totals.new_tokens);
}

}  // namespace

std::string StatusFields(const EngineStatus& status) {
  std::string ranks;
  for (const RankStatus& rank : status.ranks) AddTo(ranks, RankJson(rank));
  return fmt::format(
      R"("healthy":{},"failure":{},"page_tokens":{},"ranks":[{}],"waiting":{},"running":{},"preempted":{},"totals":{})",
      !status.failed, Quoted(status.failure), status.page_tokens, ranks, status.waiting, status.running,
      status.preempted, TotalsJson(status.totals));
}

}  // namespace runahead::protocol
