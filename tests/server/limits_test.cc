// Clients that ask for too much, are too slow, or leave.
#include <gtest/gtest.h>

#include "tests/server/client.h"

namespace runahead::server {
namespace {

constexpr double kSoon = 0.2;  // s

TEST(LimitsTest, LargeHeadsAreRefused) {
  TestService service;
  RunningServer server(service, {.max_header = 1024});
  Client client(server.address());
  client.Send(Get("/health", "X: " + std::string(5000, 'x') + "\r\n"));
  EXPECT_EQ(client.Read().status, 431);
  EXPECT_EQ(client.ReadToEnd(), "");
  Client endless(server.address());
  endless.Send("GET /" + std::string(100'000, 'x'));
  EXPECT_EQ(endless.Read().status, 431);
}

TEST(LimitsTest, LargeBodiesAreRefusedBeforeTheyCame) {
  TestService service;
  RunningServer server(service, {.max_body = 1000});
  Client client(server.address());
  client.Send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n");
  const Answered answer = client.Read();
  EXPECT_EQ(answer.status, 413);
  EXPECT_NE(answer.body.find("1000 bytes"), std::string::npos) << answer.body;
  EXPECT_EQ(client.ReadToEnd(), "");

  Client whole(server.address());
  whole.Send(Post("/tokenize", std::string(1000, 'x')));
  EXPECT_EQ(whole.Read().status, 200);

  // The answer is read although megabytes come behind it.
  Client stubborn(server.address());
  std::jthread sender([&] { stubborn.Send(Post("/tokenize", std::string(4'000'000, 'x'))); });
  EXPECT_EQ(stubborn.Read().status, 413);

  Client chunks(server.address());
  chunks.Send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 11; ++i) chunks.Send("64\r\n" + std::string(100, 'x') + "\r\n");
  EXPECT_EQ(chunks.Read().status, 413);
}

TEST(LimitsTest, EndlessLinesBetweenChunksAreRefused) {
  TestService service;
  RunningServer server(service);
  Client client(server.address());
  client.Send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;");
  std::jthread sender([&] { client.Send(std::string(300'000, 'x')); });
  EXPECT_EQ(client.Read().status, 400);
}

TEST(LimitsTest, AllBodiesTogetherAreBounded) {
  TestService service;
  RunningServer server(service, {.max_body = 1000});
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<Client>(server.address()));
    clients.back()->Send(Post("/v1/completions", std::string(1000, 'x')));
    ASSERT_NE(service.Next(), nullptr);
  }
  Client one_more(server.address());
  one_more.Send(Post("/v1/completions", "x"));
  const Answered answer = one_more.Read();
  EXPECT_EQ(answer.status, 503);
  EXPECT_TRUE(answer.fields.contains("retry-after"));
  clients.pop_back();
  ASSERT_TRUE(service.Destroyed(1));
  Client later(server.address());
  later.Send(Post("/tokenize", "x"));
  EXPECT_EQ(later.Read().status, 200);
}

TEST(LimitsTest, ConnectionsBeyondTheMostAreToldSo) {
  TestService service;
  RunningServer server(service, {.max_connections = 2});
  Client first(server.address());
  first.Send(Get("/health"));
  EXPECT_EQ(first.Read().status, 200);
  auto second = std::make_unique<Client>(server.address());
  second->Send(Get("/health"));
  EXPECT_EQ(second->Read().status, 200);
  Client third(server.address());
  third.Send(Get("/health"));
  EXPECT_EQ(third.Read().status, 503);
  EXPECT_EQ(third.ReadToEnd(), "");
  EXPECT_TRUE(third.ended());
  third.Close();
  second->Send(Get("/health", "Connection: close\r\n"));
  EXPECT_EQ(second->Read().status, 200);
  second.reset();
  first.Send(Get("/health"));
  EXPECT_EQ(first.Read().status, 200);
}

TEST(LimitsTest, SlowHeadsAndBodiesEnd) {
  TestService service;
  RunningServer server(service, {.header_timeout_s = kSoon, .body_timeout_s = kSoon});
  Client head(server.address());
  head.Send("GET /health HTTP/1.1\r\nHost:");
  EXPECT_EQ(head.Read().status, 408);
  Client body(server.address());
  body.Send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345");
  EXPECT_EQ(body.Read().status, 408);
  EXPECT_EQ(body.ReadToEnd(), "");
  EXPECT_TRUE(body.ended());
}

TEST(LimitsTest, IdleConnectionsEnd) {
  TestService service;
  RunningServer server(service, {.idle_timeout_s = kSoon});
  Client silent(server.address());
  EXPECT_EQ(silent.ReadToEnd(), "");
  EXPECT_TRUE(silent.ended());
  Client once(server.address());
  once.Send(Get("/health"));
  EXPECT_EQ(once.Read().status, 200);
  EXPECT_EQ(once.ReadToEnd(), "");
  EXPECT_TRUE(once.ended());
}

TEST(LimitsTest, AnAnswerThatIsComputedIsNotIdle) {
  TestService service;
  RunningServer server(service, {.header_timeout_s = kSoon, .body_timeout_s = kSoon, .idle_timeout_s = kSoon});
  Client client(server.address());
  client.Send(Post("/v1/completions", "{}"));
  const auto running = service.Next();
  // Another connection meets the deadline that this one must not meet.
  Client other(server.address());
  EXPECT_EQ(other.ReadToEnd(), "");
  EXPECT_TRUE(other.ended());
  running->answer->Send({200, {}}, "late");
  EXPECT_EQ(client.Read().body, "late");
}

TEST(LimitsTest, AClientThatReadsNothingIsDropped) {
  TestService service;
  RunningServer server(service, {.idle_timeout_s = kSoon});
  Client client(server.address());
  client.Send(Post("/v1/completions", "{}"));
  const auto running = service.Next();
  running->answer->Begin({200, {}});
  running->answer->Write(std::string(64'000'000, 'x'));  // more than the system keeps
  EXPECT_TRUE(service.Destroyed(1));
  const RequestRecord record = server.Records(1).at(0);
  EXPECT_FALSE(record.whole);
}

TEST(LimitsTest, AClientThatLeavesEndsItsCall) {
  TestService service;
  RunningServer server(service);
  for (int i = 0; i < 20; ++i) {
    Client client(server.address());
    client.Send(Post("/v1/completions", "{}"));
    const auto running = service.Next();
    if (i % 2 == 0) {
      running->answer->Begin({200, {}});
      running->answer->Write("begun");
      client.ReadUntil("begun");
    }
    client.Close();
    ASSERT_TRUE(service.Destroyed(i + 1));
    running->answer->Write("for nobody");
    running->answer->End();
  }
}

}  // namespace
}  // namespace runahead::server
