#include "server/stream.h"

#include <fmt/format.h>

#include <string>

#include "runahead/error.h"

namespace runahead::server {
namespace {

void CloseSocket(Socket& socket, bool reset) {
  ErrorCode ignored;
  if (reset) socket.set_option(asio::socket_base::linger(/*e=*/true, /*t=*/0), ignored);
  socket.close(ignored);
}

class ClearStream final : public Stream {
 public:
  explicit ClearStream(Socket socket) : socket_(std::move(socket)) {}

  void Handshake(std::function<void(ErrorCode)> done) override { done({}); }
  void ReadSome(std::span<char> buffer, Done done) override {
    socket_.async_read_some(asio::buffer(buffer.data(), buffer.size()), std::move(done));
  }
  void WriteSome(std::string_view bytes, Done done) override {
    socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()), std::move(done));
  }
  void EndWriting(std::function<void()> done) override {
    ErrorCode ignored;
    socket_.shutdown(asio::socket_base::shutdown_send, ignored);
    done();
  }
  void Close(bool reset) override { CloseSocket(socket_, reset); }

 private:
  Socket socket_;
};

class TlsStream final : public Stream {
 public:
  TlsStream(Socket socket, std::shared_ptr<asio::ssl::context> tls)
      : tls_(std::move(tls)), stream_(std::move(socket), *tls_) {}

  void Handshake(std::function<void(ErrorCode)> done) override {
    stream_.async_handshake(asio::ssl::stream_base::server, std::move(done));
  }
  void ReadSome(std::span<char> buffer, Done done) override {
    stream_.async_read_some(asio::buffer(buffer.data(), buffer.size()), std::move(done));
  }
  void WriteSome(std::string_view bytes, Done done) override {
    stream_.async_write_some(asio::buffer(bytes.data(), bytes.size()), std::move(done));
  }
  void EndWriting(std::function<void()> done) override {
    stream_.async_shutdown([done = std::move(done)](ErrorCode) { done(); });
  }
  void Close(bool reset) override { CloseSocket(stream_.next_layer(), reset); }

 private:
  std::shared_ptr<asio::ssl::context> tls_;
  asio::ssl::stream<Socket> stream_;
};

}  // namespace

std::unique_ptr<Stream> MakeStream(Socket socket, const std::shared_ptr<asio::ssl::context>& tls) {
  if (tls == nullptr) return std::make_unique<ClearStream>(std::move(socket));
  return std::make_unique<TlsStream>(std::move(socket), tls);
}

std::shared_ptr<asio::ssl::context> LoadTls(const std::string& certificate, const std::string& key) {
  using Context = asio::ssl::context;
  const auto check = [](const char* flag, const std::string& file, const ErrorCode& error) {
    if (error) throw ConfigError(fmt::format("{}: {}: {}", flag, file, error.message()));
  };
  auto context = std::make_shared<Context>(Context::tls_server);
  ErrorCode error;
  context->set_options(Context::default_workarounds | Context::no_sslv2 | Context::no_sslv3 | Context::no_tlsv1 |
                           Context::no_tlsv1_1 | Context::no_compression | Context::single_dh_use,
                       error);
  check("--tls-certificate", certificate, error);
  context->use_certificate_chain_file(certificate, error);
  check("--tls-certificate", certificate, error);
  context->use_private_key_file(key, Context::pem, error);
  check("--tls-key", key, error);
  return context;
}

}  // namespace runahead::server
