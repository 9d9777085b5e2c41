#include "server/http_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include "base/json.h"

namespace runahead::server {
namespace {

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

const char* TypeOf(int status) {
  constexpr int kServers = 500;
  constexpr int kTooMany = 429;
  if (status >= kServers) return "server_error";
  return status == kTooMany ? "rate_limit_error" : "invalid_request_error";
}

}  // namespace

std::string_view ReasonOf(int status) {
  constexpr std::array<std::pair<int, std::string_view>, 24> kReasons{{{200, "OK"},
                                                                       {204, "No Content"},
                                                                       {304, "Not Modified"},
                                                                       {400, "Bad Request"},
                                                                       {401, "Unauthorized"},
                                                                       {403, "Forbidden"},
                                                                       {404, "Not Found"},
                                                                       {405, "Method Not Allowed"},
                                                                       {406, "Not Acceptable"},
                                                                       {408, "Request Timeout"},
                                                                       {409, "Conflict"},
                                                                       {411, "Length Required"},
                                                                       {413, "Content Too Large"},
                                                                       {414, "URI Too Long"},
                                                                       {415, "Unsupported Media Type"},
                                                                       {417, "Expectation Failed"},
                                                                       {422, "Unprocessable Content"},
                                                                       {429, "Too Many Requests"},
                                                                       {431, "Request Header Fields Too Large"},
                                                                       {500, "Internal Server Error"},
                                                                       {501, "Not Implemented"},
                                                                       {503, "Service Unavailable"},
                                                                       {504, "Gateway Timeout"},
                                                                       {505, "HTTP Version Not Supported"}}};
  const auto* const found =
      std::find_if(kReasons.begin(), kReasons.end(), [&](const auto& reason) { return reason.first == status; });
  return found == kReasons.end() ? "Unknown" : found->second;
}

std::string HeadText(const protocol::HttpHead& head) {
  std::string text = fmt::format("HTTP/1.1 {} {}\r\n", head.status, ReasonOf(head.status));
  for (const protocol::HttpField& field : head.fields) {
    text += field.name;
    text += ": ";
    for (const char c : field.value) text += c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
    text += "\r\n";
  }
  text += "\r\n";
  return text;
}

std::string HttpDate() {
  constexpr std::array<const char*, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  constexpr int kEpoch = 1900;
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[static_cast<size_t>(utc.tm_wday)], utc.tm_mday,
                     kMonths[static_cast<size_t>(utc.tm_mon)], utc.tm_year + kEpoch, utc.tm_hour, utc.tm_min,
                     utc.tm_sec);
}

void AppendChunk(std::string& out, std::string_view bytes) {
  if (bytes.empty()) return;
  fmt::format_to(std::back_inserter(out), "{:x}\r\n", bytes.size());
  out += bytes;
  out += "\r\n";
}

std::string ErrorJson(const Refusal& refusal) {
  const Json code = refusal.code.empty() ? Json(nullptr) : Json(refusal.code);
  const Json error = {
      {"message", refusal.message}, {"type", TypeOf(refusal.status)}, {"param", nullptr}, {"code", code}};
  return Json{{"error", error}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

protocol::HttpHead ErrorHead(const Refusal& refusal) {
  protocol::HttpHead head{refusal.status, {{"content-type", "application/json"}}};
  head.fields.insert(head.fields.end(), refusal.fields.begin(), refusal.fields.end());
  return head;
}

std::string_view PathOf(std::string_view target) { return target.substr(0, target.find('?')); }

bool SameWord(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return Lower(x) == Lower(y); });
}

bool HasWord(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (SameWord(Trimmed(list.substr(0, comma)), word)) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

}  // namespace runahead::server
