// The bytes of one connection, over TCP or a unix socket, in clear or encrypted.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "server/asio.h"

namespace runahead::server {

using Socket = asio::basic_stream_socket<asio::generic::stream_protocol, Strand>;

/// All calls on the socket's strand, where completions come too. At most one read and one write at a time.
class Stream {
 public:
  using Done = std::function<void(ErrorCode, size_t bytes)>;

  virtual ~Stream() = default;
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  virtual void Handshake(std::function<void(ErrorCode)> done) = 0;
  /// At least one byte into `buffer`, or an error; the end of what comes is one too. `buffer` must live until `done`.
  virtual void ReadSome(std::span<char> buffer, Done done) = 0;
  /// At least one byte of `bytes`, which must live until `done`.
  virtual void WriteSome(std::string_view bytes, Done done) = 0;
  /// Tells the other side that nothing comes any more. The stream must live until `done`.
  virtual void EndWriting(std::function<void()> done) = 0;
  /// Drops the connection: what is under way ends with an error. `reset`: in a way that no client takes for an end.
  virtual void Close(bool reset) = 0;
};

/// In clear when `tls` is null.
std::unique_ptr<Stream> MakeStream(Socket socket, const std::shared_ptr<asio::ssl::context>& tls);

/// What a server's certificate and key files make. Throws ConfigError naming the file and OpenSSL's reason.
std::shared_ptr<asio::ssl::context> LoadTls(const std::string& certificate, const std::string& key);

}  // namespace runahead::server
