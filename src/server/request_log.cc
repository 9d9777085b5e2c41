#include "server/request_log.h"

#include <fmt/format.h>
#include <poll.h>

#include <chrono>
#include <climits>
#include <ctime>
#include <utility>

#include "base/descriptor.h"
#include "base/json.h"

namespace runahead::server {
namespace {

/// "2026-11-30T06:16:15.123Z"
std::string Now() {
  constexpr int kEpoch = 1900;
  constexpr int kThousand = 1000;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = ms / kThousand;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + kEpoch, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec, ms % kThousand);
}

/// Thousandths are as fine as anybody reads.
double Rounded(double ms) {
  constexpr double kThousand = 1000;
  return static_cast<double>(static_cast<int64_t>(ms * kThousand + 0.5)) / kThousand;
}

std::string JsonLine(const RequestRecord& record) {
  nlohmann::ordered_json line = {{"time", Now()},           {"id", record.id},         {"method", record.method},
                                 {"route", record.route},   {"status", record.status}, {"bytes", record.body_bytes},
                                 {"ms", Rounded(record.ms)}};
  if (!record.whole) line["cut"] = true;
  if (record.tokens) {
    line["prompt_tokens"] = record.tokens->prompt_tokens;
    line["cached_tokens"] = record.tokens->cached_tokens;
    line["new_tokens"] = record.tokens->new_tokens;
    line["ttft_ms"] = Rounded(record.tokens->ttft_ms);
  }
  if (!record.trace.empty()) line["traceparent"] = record.trace;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string TextLine(const RequestRecord& record) {
  std::string line =
      fmt::format("{} {} {} {} {}, {:.1f} ms, {} bytes", Now(), record.id, record.method, record.route,
                  record.status == 0 ? "-" : fmt::format("{}", record.status), record.ms, record.body_bytes);
  if (!record.whole) line += ", cut";
  if (record.tokens) {
    line += fmt::format(", prompt {} ({} cached), new {}, first after {:.1f} ms", record.tokens->prompt_tokens,
                        record.tokens->cached_tokens, record.tokens->new_tokens, record.tokens->ttft_ms);
  }
  if (!record.trace.empty()) line += ", trace " + record.trace;
  return line;
}

/// Whether PIPE_BUF bytes can be written without waiting.
bool HasRoom(int descriptor) {
  pollfd waits{descriptor, POLLOUT, 0};
  return ::poll(&waits, 1, /*timeout=*/0) == 1 && (waits.revents & POLLOUT) != 0;
}

}  // namespace

void RequestLog::Write(const RequestRecord& record) {
  if (form_ != Form::kNone) Put(form_ == Form::kJson ? JsonLine(record) : TextLine(record));
}

void RequestLog::Note(std::string_view message) { Put(NoteLine(message)); }

std::string RequestLog::NoteLine(std::string_view message) const {
  if (form_ != Form::kJson) return fmt::format("runahead: {}", message);
  const nlohmann::ordered_json line = {{"time", Now()}, {"message", message}};
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void RequestLog::Put(std::string line) {
  constexpr size_t kMost = PIPE_BUF - 1;
  const auto write = [this](std::string text) {
    if (!HasRoom(descriptor_)) return false;
    if (text.size() > kMost) text.resize(kMost);
    (void)WriteAll(descriptor_, text + "\n");
    return true;
  };
  const std::lock_guard lock(mutex_);
  if (lost_ > 0 && write(NoteLine(fmt::format("{} lines of the log were lost, which nobody read", lost_)))) lost_ = 0;
  if (lost_ > 0 || !write(std::move(line))) ++lost_;
}

}  // namespace runahead::server
