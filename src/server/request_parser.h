// HTTP/1.0 and 1.1 requests out of bytes, by Boost.Beast.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "protocol/http_call.h"
#include "server/http_text.h"

namespace runahead::server {

/// Takes the bytes of one request. Used by one thread at a time.
class RequestParser {
 public:
  /// A head of more than `max_header` bytes and a body of more than `max_body` are refused.
  RequestParser(size_t max_header, size_t max_body);
  ~RequestParser();
  RequestParser(RequestParser&&) noexcept;
  RequestParser& operator=(RequestParser&&) noexcept;

  /// Reads on in `bytes`, up to the end of the head or of the request. Returns how many bytes were used: the others
  /// are to come again, with more behind them.
  size_t Take(std::string_view bytes);

  [[nodiscard]] bool begun() const;      // a byte was there
  [[nodiscard]] bool head_done() const;  // all fields are known
  [[nodiscard]] bool done() const;
  [[nodiscard]] const std::optional<Refusal>& refusal() const;  // the bytes are no request that is taken

  [[nodiscard]] const protocol::HttpRequest& request() const;
  [[nodiscard]] protocol::HttpRequest TakeRequest();
  [[nodiscard]] bool keep_alive() const;  // the client goes on with the connection
  [[nodiscard]] bool http_1_0() const;

 private:
  class Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace runahead::server
