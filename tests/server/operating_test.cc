// Keys, origins, unix sockets, TLS, and how a server ends.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/descriptor.h"
#include "base/file.h"
#include "runahead/error.h"
#include "server/request_log.h"
#include "tests/cli/process.h"
#include "tests/server/client.h"

namespace runahead::server {
namespace {

int StatusOf(const std::string& address, const std::string& request) {
  Client client(address);
  client.Send(request);
  return client.Read().status;
}

std::string Bearer(const std::string& key) { return "Authorization: Bearer " + key + "\r\n"; }

TEST(RequestLogTest, NeverWaitsForAReaderAndCountsWhatWasLost) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const Descriptor from(ends[0]);
  const Descriptor to(ends[1]);
  const int bytes = ::fcntl(to.get(), F_SETPIPE_SZ, 4 * 4096);
  ASSERT_GE(bytes, 4096);
  RequestLog log(RequestLog::Form::kText, to.get());
  const std::string message(100, 'x');
  const int lines = bytes / 100 + 5;  // more than fit
  for (int i = 0; i < lines; ++i) log.Note(message);
  std::string all;
  const auto read = [&] {
    std::array<char, 1 << 16> buffer{};
    const ssize_t got = ReadSome(from.get(), buffer);
    ASSERT_GT(got, 0);
    all.append(buffer.data(), static_cast<size_t>(got));
  };
  read();
  const int64_t written = std::count(all.begin(), all.end(), '\n');
  EXPECT_LT(written, lines);
  log.Note("again");
  read();
  EXPECT_TRUE(
      all.ends_with(fmt::format("runahead: {} lines of the log were lost, which nobody read\n"
                                "runahead: again\n",
                                lines - written)))
      << all;
  log.Note(std::string(100'000, 'y'));  // cut, so that it cannot wait
  read();
  EXPECT_TRUE(all.ends_with("yyy\n"));
}

TEST(KeysTest, AreAskedForAndReadAgain) {
  const TemporaryFolder folder;
  const std::string keys = folder / "keys";
  WriteFile(keys, "# for us\nfirst-key\n\nsecond-key\r\n");
  TestService service;
  RunningServer server(service, {.api_keys = keys});
  const std::string& at = server.address();
  EXPECT_EQ(StatusOf(at, Get("/v1/models")), 401);
  EXPECT_EQ(StatusOf(at, Get("/v1/models", Bearer("third-key"))), 401);
  EXPECT_EQ(StatusOf(at, Get("/v1/models", Bearer("first-ke"))), 401);
  EXPECT_EQ(StatusOf(at, Get("/v1/models", "Authorization: first-key\r\n")), 401);
  EXPECT_EQ(StatusOf(at, Get("/v1/models", Bearer("first-key"))), 200);
  EXPECT_EQ(StatusOf(at, Get("/v1/models", "Authorization: bearer second-key\r\n")), 200);
  EXPECT_EQ(StatusOf(at, Get("/metrics")), 401);
  EXPECT_EQ(StatusOf(at, Get("/runahead/state")), 401);
  for (const char* open : {"/health", "/ready", "/", "/page/main.js"})
    EXPECT_EQ(StatusOf(at, Get(open)), 200) << open;

  WriteFile(keys, "third-key\n");
  server.server().Reload();
  EXPECT_EQ(StatusOf(at, Get("/v1/models", Bearer("third-key"))), 200);
  EXPECT_EQ(StatusOf(at, Get("/v1/models", Bearer("first-key"))), 401);
  WriteFile(keys, "two words\n");
  server.server().Reload();
  EXPECT_EQ(StatusOf(at, Get("/v1/models", Bearer("third-key"))), 200);
}

TEST(KeysTest, AreNeededWhereOthersListen) {
  TestService service;
  const auto refusal = [&](ServerOptions options) -> std::string {
    try {
      options.port = 0;
      const Server server(std::move(options), service.Make());
      return "";
    } catch (const ConfigError& error) {
      return error.what();
    }
  };
  EXPECT_NE(refusal({.host = "0.0.0.0"}).find("--insecure-open"), std::string::npos);
  EXPECT_NE(refusal({.host = "::"}).find("--api-keys"), std::string::npos);
  EXPECT_EQ(refusal({.host = "0.0.0.0", .insecure_open = true}), "");
  EXPECT_EQ(refusal({.host = "localhost"}), "");
  EXPECT_NE(refusal({.host = "example.com", .insecure_open = true}).find("'example.com'"), std::string::npos);
  EXPECT_NE(refusal({.tls_key = "key.pem"}).find("--tls-certificate"), std::string::npos);
  const TemporaryFolder folder;
  WriteFile(folder / "keys", "# none\n");
  EXPECT_NE(refusal({.api_keys = folder / "keys"}).find("has no key"), std::string::npos);
}

TEST(OriginTest, PagesOfOthersMayNotAsk) {
  TestService service;
  RunningServer closed(service);
  RunningServer open(service, {.cors_origins = {"https://chat.example"}});
  const std::string friendly = "Origin: https://chat.example\r\n";
  EXPECT_EQ(StatusOf(closed.address(), Post("/tokenize", "x", friendly)), 403);
  EXPECT_EQ(StatusOf(closed.address(), Post("/tokenize", "x", "Origin: http://localhost\r\n")), 200);
  EXPECT_EQ(StatusOf(closed.address(), "GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 403);
  EXPECT_EQ(StatusOf(closed.address(), "GET /health HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n"), 200);
  EXPECT_EQ(StatusOf(closed.address(), "GET /health HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), 200);
  EXPECT_EQ(StatusOf(open.address(), Post("/tokenize", "x", "Origin: https://evil.example\r\n")), 403);
  Client client(open.address());
  client.Send(Post("/tokenize", "x", friendly));
  EXPECT_EQ(client.Read().fields.at("access-control-allow-origin"), "https://chat.example");
  client.Send("OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + friendly +
              "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n");
  const Answered preflight = client.Read(/*head_only=*/true);
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.fields.at("access-control-allow-headers"), "authorization");
  EXPECT_FALSE(preflight.fields.contains("content-length"));
}

TEST(UnixSocketTest, ServesAndGoesWithItsServer) {
  const TemporaryFolder folder;
  const std::string path = folder / "socket";
  TestService service;
  {
    RunningServer server(service, {.host = "", .unix_socket = path});
    EXPECT_EQ(server.address(), "unix:" + path);
    EXPECT_EQ(StatusOf(server.address(), "GET /health HTTP/1.1\r\nHost: anything\r\n\r\n"), 200);
    EXPECT_THROW(RunningServer(service, {.host = "", .unix_socket = path}), IoError);
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0660U);
  }
  struct stat status {};
  EXPECT_NE(::stat(path.c_str(), &status), 0);
  WriteFile(path, "somebody's");
  EXPECT_THROW(RunningServer(service, {.host = "", .unix_socket = path}), IoError);
  EXPECT_EQ(ReadFile(path), "somebody's");
}

TEST(DrainTest, CompletesWhatRuns) {
  TestService service;
  RunningServer server(service);
  Client running_client(server.address());
  running_client.Send(Post("/v1/completions", "{}"));
  Client whole_client(server.address());
  const auto running = service.Next();
  running->answer->Begin({200, {}});
  running->answer->Write("first ");
  running_client.ReadUntil("first ");
  Client idle(server.address());
  idle.Send(Get("/ready"));
  EXPECT_EQ(idle.Read().status, 200);
  whole_client.Send(Post("/v1/completions", "{}"));
  const auto whole = service.Next();

  server.server().Drain();
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_TRUE(idle.ended());
  EXPECT_THROW(Client(server.address()), std::runtime_error);
  whole->answer->Send({200, {}}, "whole");
  const Answered answer = whole_client.Read();
  EXPECT_EQ(answer.body, "whole");
  EXPECT_EQ(answer.fields.at("connection"), "close");
  running->answer->Write("last");
  running->answer->End();
  EXPECT_NE(running_client.ReadUntil("0\r\n\r\n").find("last"), std::string::npos);
  // The connection was kept: one more request gets its answer too.
  running_client.Send(Get("/ready"));
  const Answered ready = running_client.Read();
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.fields.at("connection"), "close");
  EXPECT_EQ(server.Ended(), Server::Outcome::kDrained);
}

TEST(DrainTest, CutsHonestlyWhatTakesTooLong) {
  TestService service;
  RunningServer server(service, {.drain_timeout_s = 0.1});
  Client stream(server.address());
  stream.Send(Post("/v1/completions", "{}"));
  service.Next()->answer->Begin({200, {{"content-type", "text/event-stream"}}});
  Client whole(server.address());
  whole.Send(Post("/v1/completions", "{}"));
  ASSERT_NE(service.Next(), nullptr);
  server.server().Drain();
  const Answered refused = whole.Read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.body.find(R"("type":"server_error")"), std::string::npos);
  const Answered cut = stream.Read();
  EXPECT_TRUE(cut.body.starts_with("data: {\"error\":")) << cut.body;
  EXPECT_FALSE(cut.whole);
  EXPECT_TRUE(service.Destroyed(2));
  EXPECT_EQ(server.Ended(), Server::Outcome::kCut);
}

/// Writes a key and a certificate of its own.
void WriteCertificate(const std::string& certificate, const std::string& key) {
  constexpr int kBits = 2048;
  constexpr int kYear = 31'536'000;  // s
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> pair(EVP_RSA_gen(kBits), EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> x509(X509_new(), X509_free);
  X509_gmtime_adj(X509_getm_notBefore(x509.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(x509.get()), kYear);
  X509_set_pubkey(x509.get(), pair.get());
  X509_sign(x509.get(), pair.get(), EVP_sha256());
  const auto write = [](const std::string& path, const auto& put) {
    BIO* const file = BIO_new_file(path.c_str(), "w");
    ASSERT_EQ(put(file), 1);
    BIO_free(file);
  };
  write(certificate, [&](BIO* file) { return PEM_write_bio_X509(file, x509.get()); });
  write(key,
        [&](BIO* file) { return PEM_write_bio_PrivateKey(file, pair.get(), nullptr, nullptr, 0, nullptr, nullptr); });
}

TEST(TlsTest, ServesEncryptedAndClosesInOrder) {
  const TemporaryFolder folder;
  WriteCertificate(folder / "cert.pem", folder / "key.pem");
  TestService service;
  RunningServer server(service, {.tls_certificate = folder / "cert.pem", .tls_key = folder / "key.pem"});
  EXPECT_TRUE(server.address().starts_with("https://"));
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new_ssl_connect(context.get()), BIO_free_all);
  BIO_set_conn_hostname(bio.get(), server.address().substr(8).c_str());
  const std::string body(200'000, 'x');
  const std::string request = Post("/tokenize", body) + Get("/health", "Connection: close\r\n");
  ASSERT_EQ(BIO_write(bio.get(), request.data(), static_cast<int>(request.size())), static_cast<int>(request.size()));
  std::string all;
  std::array<char, 4096> buffer{};
  int got = 0;
  while ((got = BIO_read(bio.get(), buffer.data(), buffer.size())) > 0)
    all.append(buffer.data(), static_cast<size_t>(got));
  EXPECT_EQ(got, 0);  // an orderly end, by TLS's own word
  EXPECT_NE(all.find(body), std::string::npos);
  EXPECT_TRUE(all.ends_with(R"({"status":"ok"})"));

  Client clear(server.address());
  clear.Send(Get("/health"));
  (void)clear.ReadToEnd();
  EXPECT_TRUE(clear.ended());
  EXPECT_THROW(RunningServer(service, {.tls_certificate = folder / "none", .tls_key = folder / "key.pem"}),
               ConfigError);
}

}  // namespace
}  // namespace runahead::server
