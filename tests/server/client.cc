#include "tests/server/client.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace runahead::server {
namespace {

using protocol::HttpAnswer;
using protocol::HttpCall;
using protocol::HttpRequest;

constexpr auto kPatience = std::chrono::seconds(10);
constexpr int kPatienceMs = 10'000;

Descriptor Connect(const std::string& address) {
  constexpr std::string_view kUnix = "unix:";
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (address.starts_with(kUnix)) {
    auto* const place = reinterpret_cast<sockaddr_un*>(&storage);
    place->sun_family = AF_UNIX;
    address.copy(place->sun_path, sizeof(place->sun_path) - 1, kUnix.size());
    size = sizeof(sockaddr_un);
  } else {
    auto* const place = reinterpret_cast<sockaddr_in*>(&storage);
    place->sin_family = AF_INET;
    place->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    place->sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    size = sizeof(sockaddr_in);
  }
  Descriptor socket(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0) {
    throw std::runtime_error("cannot connect to " + address + ": " + std::strerror(errno));
  }
  return socket;
}

}  // namespace

Client::Client(const std::string& address) : socket_(Connect(address)) {}

void Client::Send(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // the server has closed: what it said can still be read
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

bool Client::ReadMore() {
  pollfd wait{socket_.get(), POLLIN, 0};
  if (ended_ || ::poll(&wait, 1, kPatienceMs) <= 0) return false;
  std::array<char, 4096> buffer{};
  const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
  ended_ = got <= 0;
  if (!ended_) input_.append(buffer.data(), static_cast<size_t>(got));
  return !ended_;
}

std::string Client::ReadUntil(std::string_view text) {
  while (input_.find(text) == std::string::npos) {
    if (!ReadMore()) return std::exchange(input_, {});
  }
  const size_t end = input_.find(text) + text.size();
  std::string read = input_.substr(0, end);
  input_.erase(0, end);
  return read;
}

std::string Client::ReadToEnd() {
  while (ReadMore()) {
  }
  return std::exchange(input_, {});
}

Answered Client::Read(bool head_only) {
  Answered answer;
  const std::string head = ReadUntil("\r\n\r\n");
  if (!head.starts_with("HTTP/1.1 ")) return answer;
  constexpr size_t kStatusAt = 9;
  answer.status = std::stoi(head.substr(kStatusAt, 3));
  for (size_t at = head.find("\r\n") + 2; at + 2 < head.size();) {
    const size_t end = head.find("\r\n", at);
    const size_t colon = head.find(": ", at);
    answer.fields[head.substr(at, colon - at)] = head.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  if (head_only) return answer;
  if (answer.fields.contains("content-length")) {
    const size_t size = std::stoul(answer.fields["content-length"]);
    while (input_.size() < size && ReadMore()) {
    }
    answer.whole = input_.size() >= size;
    answer.body = input_.substr(0, size);
    input_.erase(0, size);
  } else if (answer.fields.contains("transfer-encoding")) {
    while (true) {
      const std::string line = ReadUntil("\r\n");
      const size_t size = line.ends_with("\r\n") ? std::stoul(line, nullptr, 16) : 0;
      const std::string end = line.empty() ? "" : ReadUntil("\r\n");
      if (size == 0) {
        answer.whole = end == "\r\n";
        break;
      }
      answer.body += end.substr(0, end.size() - 2);
    }
  } else {
    answer.body = ReadToEnd();
    answer.whole = ended_;
  }
  return answer;
}

std::string Get(const std::string& path, const std::string& lines) {
  return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + lines + "\r\n";
}

std::string Post(const std::string& path, const std::string& body, const std::string& lines) {
  return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         lines + "\r\n" + body;
}

class TestService::Call final : public HttpCall {
 public:
  explicit Call(TestService& service) : service_(service) {}
  ~Call() override {
    const std::lock_guard lock(service_.mutex_);
    ++service_.destroyed_;
    service_.changed_.notify_all();
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  TestService& service_;
};

Service TestService::Make() {
  Service service;
  service.start = [this](HttpRequest request, std::shared_ptr<HttpAnswer> answer) -> std::unique_ptr<HttpCall> {
    if (request.target == "/v1/models") {
      answer->Send({200, {{"content-type", "application/json"}}}, R"({"id": "test"})");
    } else if (request.target == "/tokenize") {
      answer->Send({200, {{"content-type", "text/plain"}}}, request.body);
    } else {
      const std::lock_guard lock(mutex_);
      running_.push_back(std::make_shared<Running>(Running{std::move(request), std::move(answer)}));
      changed_.notify_all();
    }
    return std::make_unique<Call>(*this);
  };
  service.failure = [this] {
    const std::lock_guard lock(mutex_);
    return failure_;
  };
  service.metrics = [] { return std::string("a_metric 1\n"); };
  return service;
}

std::shared_ptr<TestService::Running> TestService::Next() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kPatience, [this] { return !running_.empty(); })) return nullptr;
  auto first = running_.front();
  running_.erase(running_.begin());
  return first;
}

bool TestService::Destroyed(int calls) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return destroyed_ >= calls; });
}

void TestService::Fail(const std::string& failure) {
  const std::lock_guard lock(mutex_);
  failure_ = failure;
}

RunningServer::RunningServer(TestService& service, ServerOptions options)
    : server_(
          [&] {
            options.port = 0;
            return std::move(options);
          }(),
          service.Make(), Hooks()) {
  server_.Listen();
  thread_ = std::jthread([this] {
    const Server::Outcome outcome = server_.Run();
    const std::lock_guard lock(mutex_);
    outcome_ = outcome;
    changed_.notify_all();
  });
}

RunningServer::~RunningServer() { server_.Stop(); }

ServerHooks RunningServer::Hooks() {
  ServerHooks hooks;
  hooks.answered = [this](const RequestRecord& record) {
    const std::lock_guard lock(mutex_);
    records_.push_back(record);
    changed_.notify_all();
  };
  return hooks;
}

std::optional<Server::Outcome> RunningServer::Ended() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPatience, [this] { return outcome_.has_value(); });
  return outcome_;
}

std::vector<RequestRecord> RunningServer::Records(size_t count) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPatience, [&] { return records_.size() >= count; });
  return records_;
}

}  // namespace runahead::server
