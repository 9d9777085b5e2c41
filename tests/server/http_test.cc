// What HTTP asks of a server, over real sockets.
#include <gtest/gtest.h>

#include "tests/server/client.h"

namespace runahead::server {
namespace {

class HttpTest : public testing::Test {
 protected:
  TestService service_;
  RunningServer server_{service_};
  Client client_{server_.address()};
};

TEST_F(HttpTest, KeepsAConnectionForManyRequests) {
  for (int i = 0; i < 100; ++i) {
    const std::string body = "request " + std::to_string(i);
    client_.Send(Post("/tokenize", body));
    const Answered answer = client_.Read();
    ASSERT_EQ(answer.status, 200);
    ASSERT_EQ(answer.body, body);
    ASSERT_FALSE(answer.fields.contains("connection"));
    ASSERT_TRUE(answer.fields.contains("x-request-id"));
    ASSERT_TRUE(answer.fields.contains("date"));
  }
}

TEST_F(HttpTest, AnswersPipelinedRequestsInTheirOrder) {
  std::string all;
  for (int i = 0; i < 2000; ++i) all += i % 3 == 0 ? Get("/health") : Post("/tokenize", std::to_string(i));
  std::jthread sender([&] { client_.Send(all); });
  for (int i = 0; i < 2000; ++i) {
    const Answered answer = client_.Read();
    ASSERT_EQ(answer.status, 200) << i;
    ASSERT_EQ(answer.body, i % 3 == 0 ? R"({"status":"ok"})" : std::to_string(i));
  }
}

TEST_F(HttpTest, TakesRequestsInAnyPieces) {
  const std::string request = Post("/tokenize", "in pieces") + Get("/v1/models");
  for (const char c : request) client_.Send({&c, 1});
  EXPECT_EQ(client_.Read().body, "in pieces");
  EXPECT_EQ(client_.Read().body, R"({"id": "test"})");
}

TEST_F(HttpTest, TakesChunkedBodies) {
  const std::string head = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
  client_.Send(head + "5\r\nhello\r\n7;note=x\r\n, world\r\n0\r\nTrailer: x\r\n\r\n" + Get("/health"));
  EXPECT_EQ(client_.Read().body, "hello, world");
  EXPECT_EQ(client_.Read().status, 200);
}

TEST_F(HttpTest, SaysContinueBeforeTheBodyComes) {
  client_.Send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client_.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client_.Send("body");
  EXPECT_EQ(client_.Read().body, "body");
  client_.Send("GET /health HTTP/1.1\r\nHost: localhost\r\nExpect: miracles\r\n\r\n");
  EXPECT_EQ(client_.Read().status, 417);
}

TEST_F(HttpTest, AnswersHeadWithoutABody) {
  client_.Send("HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n" + Get("/v1/models"));
  const Answered head = client_.Read(/*head_only=*/true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.fields.at("content-length"), "14");
  EXPECT_EQ(client_.Read().body, R"({"id": "test"})");
}

TEST_F(HttpTest, SpeaksHttp10) {
  client_.Send("GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(client_.Read().fields.at("connection"), "keep-alive");
  client_.Send("GET /v1/models HTTP/1.0\r\n\r\n");
  EXPECT_EQ(client_.Read().fields.at("connection"), "close");
  EXPECT_EQ(client_.ReadToEnd(), "");
  EXPECT_TRUE(client_.ended());

  Client stream(server_.address());
  stream.Send("POST /v1/completions HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
  const auto running = service_.Next();
  running->answer->Begin({200, {{"content-type", "text/event-stream"}}});
  running->answer->Write("data: 1\n\n");
  running->answer->End();
  const Answered answer = stream.Read();
  EXPECT_FALSE(answer.fields.contains("transfer-encoding"));
  EXPECT_EQ(answer.body, "data: 1\n\n");
  EXPECT_TRUE(answer.whole);
}

TEST_F(HttpTest, ClosesWhenAskedTo) {
  client_.Send(Get("/v1/models", "Connection: close\r\n") + Get("/v1/models"));
  EXPECT_EQ(client_.Read().fields.at("connection"), "close");
  EXPECT_EQ(client_.ReadToEnd(), "");
  EXPECT_TRUE(client_.ended());
}

TEST_F(HttpTest, StreamsInChunksAndGoesOn) {
  client_.Send(Post("/v1/completions", "{}"));
  const auto running = service_.Next();
  EXPECT_EQ(running->request.method, "POST");
  EXPECT_EQ(running->request.body, "{}");
  running->answer->Begin({200, {{"content-type", "text/event-stream"}}});
  EXPECT_NE(client_.ReadUntil("\r\n\r\n").find("transfer-encoding: chunked"), std::string::npos);
  running->answer->Write("data: 1\n\n");
  EXPECT_EQ(client_.ReadUntil("\n\n\r\n"), "9\r\ndata: 1\n\n\r\n");
  running->answer->Write("");  // would be the end
  running->answer->Write("data: [DONE]\n\n");
  running->answer->End();
  EXPECT_EQ(client_.ReadUntil("0\r\n\r\n"), "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
  EXPECT_TRUE(service_.Destroyed(1));
  client_.Send(Get("/health"));
  EXPECT_EQ(client_.Read().status, 200);
}

TEST_F(HttpTest, ShowsThatABrokenAnswerIsNotWhole) {
  client_.Send(Post("/v1/completions", "{}"));
  const auto running = service_.Next();
  running->answer->Begin({200, {{"content-type", "text/event-stream"}}});
  running->answer->Write("data: 1\n\n");
  running->answer->Break();
  const Answered answer = client_.Read();
  EXPECT_EQ(answer.body, "data: 1\n\n");
  EXPECT_FALSE(answer.whole);
  EXPECT_TRUE(client_.ended());
  EXPECT_FALSE(server_.Records(1).at(0).whole);
}

TEST_F(HttpTest, RefusesWhatIsNoRequest) {
  const std::string zeros(40, '\0');
  const std::string long_body = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\n";
  for (const std::string& garbage : std::vector<std::string>{
           "\x16\x03\x01\x02garbage\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\nbad field\r\n\r\n",
           "GET / HTTP/2.0\r\n\r\n", zeros + "\r\n\r\n", long_body + "Content-Length: -1\r\n\r\n",
           long_body + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
           long_body + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           long_body + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"}) {
    Client client(server_.address());
    client.Send(garbage);
    const Answered answer = client.Read();
    EXPECT_TRUE(answer.status == 400 || answer.status == 505) << garbage << answer.status;
    EXPECT_TRUE(answer.body.starts_with(R"({"error":{"code":"bad_http)")) << answer.body;
    EXPECT_EQ(answer.fields.at("connection"), "close");
    EXPECT_EQ(client.ReadToEnd(), "");
    EXPECT_TRUE(client.ended());
  }
  client_.Send("GET /health HTTP/1.1\r\n\r\n");
  EXPECT_EQ(client_.Read().status, 400);
}

TEST_F(HttpTest, KnowsItsRoutes) {
  const auto status = [&](const std::string& request) {
    client_.Send(request);
    return client_.Read().status;
  };
  EXPECT_EQ(status(Get("/nothing")), 404);
  EXPECT_EQ(status(Get("/../etc/passwd")), 404);
  EXPECT_EQ(status(Get("/metrics")), 200);
  EXPECT_EQ(status(Get("/health?verbose")), 200);
  EXPECT_EQ(status(Post("/health", "")), 405);
  EXPECT_EQ(status(Get("/")), 200);
  EXPECT_EQ(status(Get("/page/main.js")), 200);
  EXPECT_EQ(status(Get("/page/nothing")), 404);
  EXPECT_EQ(status("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
}

TEST_F(HttpTest, IsNotHealthyWhenTheEngineFailed) {
  service_.Fail("rank 1: out of memory");
  client_.Send(Get("/health") + Get("/ready"));
  const Answered health = client_.Read();
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.body, R"({"failure":"rank 1: out of memory","status":"failed"})");
  EXPECT_EQ(client_.Read().status, 503);
}

TEST_F(HttpTest, RecordsEveryRequest) {
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  client_.Send(Post("/v1/completions?x=secret", "{}", "X-Request-Id: mine\r\nTraceparent: " + trace + "\r\n"));
  const auto running = service_.Next();
  EXPECT_EQ(running->request.Field("x-request-id"), "mine");
  running->answer->Note({.prompt_tokens = 100, .cached_tokens = 64, .new_tokens = 5, .ttft_ms = 7.5});
  running->answer->Send({200, {}}, "12345");
  const Answered answer = client_.Read();
  EXPECT_EQ(answer.fields.at("x-request-id"), "mine");
  EXPECT_EQ(answer.fields.at("traceparent"), trace);
  const RequestRecord record = server_.Records(1).at(0);
  EXPECT_EQ(record.id, "mine");
  EXPECT_EQ(record.method, "POST");
  EXPECT_EQ(record.route, "/v1/completions");
  EXPECT_EQ(record.status, 200);
  EXPECT_EQ(record.body_bytes, 5U);
  EXPECT_TRUE(record.whole);
  EXPECT_EQ(record.trace, trace);
  ASSERT_TRUE(record.tokens);
  EXPECT_EQ(record.tokens->cached_tokens, 64);
  client_.Send(Get("/v1/models", "X-Request-Id: not one\r\nTraceparent: nonsense\r\n"));
  const Answered other = client_.Read();
  EXPECT_TRUE(other.fields.at("x-request-id").starts_with("req-"));
  EXPECT_FALSE(other.fields.contains("traceparent"));
}

}  // namespace
}  // namespace runahead::server
