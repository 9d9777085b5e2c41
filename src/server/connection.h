// One connection: requests in, answers out, one after the other, and nobody who can hold it up for ever.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "server/asio.h"
#include "server/exchange.h"
#include "server/gate.h"
#include "server/request_log.h"
#include "server/request_parser.h"
#include "server/server_options.h"
#include "server/site.h"
#include "server/stream.h"

namespace runahead::server {

class Connection;

/// What the connections of a server share. Outlives them.
struct ConnectionRoom {
  const ServerOptions& options;
  const Gate& gate;
  const Site& site;
  /// Runs what takes long, elsewhere.
  std::function<void(std::function<void()>)> run;
  std::function<void(const RequestRecord&)> answered;
  std::function<void(const Connection*)> closed;
  std::atomic<bool> draining = false;
  std::atomic<size_t> body_bytes = 0;  // of the requests that are being read and answered
};

/// Its methods, but for Start and Post..., run on its strand. Lives as long as something is under way.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  /// `local`: through a unix socket.
  Connection(ConnectionRoom& room, Strand strand, std::unique_ptr<Stream> stream, bool local);

  /// Begins to serve. With a `refusal`, says that and nothing else.
  void Start(std::optional<Refusal> refusal);

  // From any thread.
  void PostDrain();                       // idle connections end soon, others behind their answer
  void PostStop(const Refusal& refusal);  // ends, saying why where an answer is under way

 private:
  enum class State : unsigned char { kReading, kAnswering, kLingering, kClosed };
  using Clock = std::chrono::steady_clock;

  void Read();
  void DidRead(ErrorCode error, size_t bytes);
  void Process();
  bool CheckHead();
  bool CountBody();
  void Refuse(const Refusal& refusal);
  void Open(protocol::HttpRequest& request, bool keep_alive);
  void Answer();
  void Pump();
  void DidWrite(ErrorCode error, size_t bytes);
  void Finish();
  void Record(bool whole);
  void Release();
  void AwaitRequest();
  void Linger();
  void Drop();
  void Close(bool reset);

  void SetDeadline(double seconds);
  void SetDeadlineAt(Clock::time_point at);
  void Arm();
  void PassedDeadline();

  ConnectionRoom& room_;
  Strand strand_;
  std::unique_ptr<Stream> stream_;
  const bool local_;
  State state_ = State::kReading;

  std::array<char, size_t{16} << 10> buffer_;  // what a read fills
  bool reading_ = false;
  std::string input_;  // what was read and not understood yet
  RequestParser parser_;
  size_t counted_body_ = 0;       // bytes of the body that room_.body_bytes has
  Clock::time_point idle_since_;  // while no request has begun
  Clock::time_point body_since_;  // while a body is read

  std::shared_ptr<Exchange> exchange_;  // null: nothing is answered
  std::unique_ptr<protocol::HttpCall> call_;
  RequestRecord record_;
  Clock::time_point answer_since_;

  std::string output_;
  size_t written_ = 0;  // bytes of output_
  bool writing_ = false;
  Exchange::Bytes taken_;  // what the exchange said last, without its text

  asio::steady_timer timer_;
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point armed_for_ = Clock::time_point::max();
};

}  // namespace runahead::server
