#include "server/request_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <cstring>
#include <string>
#include <utility>

namespace runahead::server {
namespace {

namespace http = boost::beast::http;
using ErrorCode = boost::beast::error_code;
using Text = boost::beast::string_view;

Refusal RefusalOf(const ErrorCode& error, size_t max_header, size_t max_body) {
  constexpr int kTooLongBody = 413;
  constexpr int kTooLongHead = 431;
  constexpr int kOtherVersion = 505;
  if (error == http::error::body_limit) {
    return {kTooLongBody, "body_too_large", fmt::format("the body has more than {} bytes", max_body), {}};
  }
  if (error == http::error::header_limit) {
    return {kTooLongHead, "header_too_large", fmt::format("the head has more than {} bytes", max_header), {}};
  }
  if (error == http::error::bad_version) {
    return {kOtherVersion, "bad_http_version", "this server speaks HTTP/1.1 and HTTP/1.0", {}};
  }
  return {400, "bad_http", fmt::format("this is no HTTP request: {}", error.message()), {}};
}

}  // namespace

/// Puts what Beast reads into a request.
class RequestParser::Parser final : public http::basic_parser<true> {
 public:
  Parser(size_t max_header, size_t max_body) : max_header_(max_header), max_body_(max_body) {
    header_limit(static_cast<std::uint32_t>(max_header));
    body_limit(max_body);
  }

  size_t Take(std::string_view bytes) {
    size_t used = 0;
    // An empty line before a request is left over from the one before it.
    while (!begun_ && used < bytes.size() && (bytes[used] == '\r' || bytes[used] == '\n')) ++used;
    begun_ = begun_ || used < bytes.size();
    const bool had_head = is_header_done();
    while (used < bytes.size() && !is_done() && is_header_done() == had_head) {
      ErrorCode error;
      const size_t taken = put({bytes.data() + used, bytes.size() - used}, error);
      used += taken;
      if (error == http::error::need_more) return used;
      if (error) {
        refusal = RefusalOf(error, max_header_, max_body_);
        return used;
      }
      if (taken == 0) return used;
    }
    return used;
  }

  [[nodiscard]] bool begun() const { return begun_; }

  protocol::HttpRequest request;
  std::optional<Refusal> refusal;
  bool http_1_0 = false;

 private:
  void on_request_impl(http::verb /*verb*/, Text method, Text target, int version, ErrorCode& error) override {
    constexpr int kOldVersion = 10;
    constexpr int kVersion = 11;
    request.method.assign(method.data(), method.size());
    request.target.assign(target.data(), target.size());
    http_1_0 = version == kOldVersion;
    if (version != kOldVersion && version != kVersion) error = http::error::bad_version;
  }

  void on_response_impl(int /*code*/, Text /*reason*/, int /*version*/, ErrorCode& /*error*/) override {}

  void on_field_impl(http::field /*field*/, Text name, Text value, ErrorCode& /*error*/) override {
    std::string lower(name.data(), name.size());
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    request.fields.push_back({std::move(lower), std::string(value.data(), value.size())});
  }

  void on_header_impl(ErrorCode& /*error*/) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>& /*length*/, ErrorCode& /*error*/) override {}

  std::size_t on_body_impl(Text body, ErrorCode& /*error*/) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }

  void on_chunk_header_impl(std::uint64_t /*size*/, Text /*extensions*/, ErrorCode& /*error*/) override {}

  std::size_t on_chunk_body_impl(std::uint64_t /*remain*/, Text body, ErrorCode& /*error*/) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }

  void on_finish_impl(ErrorCode& /*error*/) override {}

  size_t max_header_;
  size_t max_body_;
  bool begun_ = false;
};

RequestParser::RequestParser(size_t max_header, size_t max_body)
    : parser_(std::make_unique<Parser>(max_header, max_body)) {}
RequestParser::~RequestParser() = default;
RequestParser::RequestParser(RequestParser&&) noexcept = default;
RequestParser& RequestParser::operator=(RequestParser&&) noexcept = default;

size_t RequestParser::Take(std::string_view bytes) { return parser_->Take(bytes); }
bool RequestParser::begun() const { return parser_->begun(); }
bool RequestParser::head_done() const { return parser_->is_header_done(); }
bool RequestParser::done() const { return parser_->is_done(); }
const std::optional<Refusal>& RequestParser::refusal() const { return parser_->refusal; }
const protocol::HttpRequest& RequestParser::request() const { return parser_->request; }
protocol::HttpRequest RequestParser::TakeRequest() { return std::move(parser_->request); }
bool RequestParser::keep_alive() const { return parser_->keep_alive(); }
bool RequestParser::http_1_0() const { return parser_->http_1_0; }

}  // namespace runahead::server
