#include "server/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <random>
#include <utility>

#include "protocol/http_status.h"

namespace runahead::server {
namespace {

using protocol::HttpCall;
using protocol::HttpField;
using protocol::HttpRequest;

constexpr size_t kMostUnread = size_t{64} << 10;  // bytes of later requests that are read during an answer
constexpr double kLingerS = 2;                    // time for a client to read what was said last, s
constexpr double kDrainedIdleS = 1;               // time for a request that is on its way when the server drains, s

/// "req-" and 96 random bits.
std::string NewId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("req-{:016x}{:08x}", random(), static_cast<uint32_t>(random()));
}

bool IsVisible(std::string_view text, size_t most) {
  return !text.empty() && text.size() <= most &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~' && c != '"' && c != '\\'; });
}

/// The client's own name for its request, or a new one, which the request gets.
std::string IdOf(HttpRequest& request) {
  constexpr size_t kLongest = 128;
  for (HttpField& field : request.fields) {
    if (field.name != "x-request-id") continue;
    if (!IsVisible(field.value, kLongest)) field.value = NewId();
    return field.value;
  }
  request.fields.push_back({"x-request-id", NewId()});
  return request.fields.back().value;
}

/// W3C trace context: "00-<32 hex>-<16 hex>-<2 hex>", and later versions with more behind.
bool IsTrace(std::string_view text) {
  constexpr size_t kLength = 55;
  constexpr size_t kLongest = 256;
  return text.size() >= kLength && IsVisible(text, kLongest) &&
         text.substr(0, kLength).find_first_not_of("0123456789abcdef-") == std::string_view::npos;
}

}  // namespace

Connection::Connection(ConnectionRoom& room, Strand strand, std::unique_ptr<Stream> stream, bool local)
    : room_(room),
      strand_(std::move(strand)),
      stream_(std::move(stream)),
      local_(local),
      parser_(room.options.max_header, room.options.max_body),
      timer_(strand_) {}

void Connection::Start(std::optional<Refusal> refusal) {
  asio::post(strand_, [self = shared_from_this(), refusal = std::move(refusal)] {
    self->SetDeadline(self->room_.options.header_timeout_s);
    self->stream_->Handshake([self, refusal](ErrorCode error) {
      if (error || self->state_ == State::kClosed) return self->Close(/*reset=*/false);
      if (refusal) return self->Refuse(*refusal);
      self->AwaitRequest();
    });
  });
}

void Connection::PostDrain() {
  asio::post(strand_, [self = shared_from_this()] {
    if (self->state_ != State::kReading || self->parser_.begun()) return;
    self->SetDeadlineAt(self->idle_since_ +
                        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(kDrainedIdleS)));
  });
}

void Connection::PostStop(const Refusal& refusal) {
  asio::post(strand_, [self = shared_from_this(), refusal] {
    if (self->state_ == State::kReading) return self->Close(/*reset=*/false);
    if (self->state_ != State::kAnswering) return;
    self->exchange_->Fail(refusal);
    self->call_.reset();
    self->Pump();
  });
}

void Connection::AwaitRequest() {
  state_ = State::kReading;
  parser_ = RequestParser(room_.options.max_header, room_.options.max_body);
  idle_since_ = Clock::now();
  SetDeadline(room_.draining ? kDrainedIdleS : room_.options.idle_timeout_s);
  Process();
  Read();
}

void Connection::Read() {
  if (reading_ || state_ == State::kClosed) return;
  if (state_ == State::kAnswering && input_.size() >= kMostUnread) return;
  reading_ = true;
  stream_->ReadSome(buffer_,
                    [self = shared_from_this()](ErrorCode error, size_t bytes) { self->DidRead(error, bytes); });
}

void Connection::DidRead(ErrorCode error, size_t bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (error) return state_ == State::kAnswering ? Drop() : Close(/*reset=*/false);
  if (state_ != State::kLingering) {
    input_.append(buffer_.data(), bytes);
    Process();
  }
  Read();
}

void Connection::Process() {
  try {
    while (state_ == State::kReading && !input_.empty()) {
      const bool had_begun = parser_.begun();
      const bool had_head = parser_.head_done();
      const size_t used = parser_.Take(input_);
      input_.erase(0, used);
      if (!had_begun && parser_.begun()) SetDeadline(room_.options.header_timeout_s);
      if (parser_.refusal()) return Refuse(*parser_.refusal());
      if (!had_head && parser_.head_done() && !CheckHead()) return;
      if (!CountBody()) return;
      if (parser_.done()) return Answer();
      if (used > 0) continue;
      if (input_.size() > kMostUnread + room_.options.max_header) {
        Refuse({400, "bad_http", "a line between the chunks of the body is too long", {}});
      }
      return;
    }
  } catch (const std::bad_alloc&) {
    Refuse({protocol::kUnavailable, "out_of_memory", "there is no memory left for this request", {}});
  }
}

bool Connection::CheckHead() {
  const HttpRequest& request = parser_.request();
  body_since_ = Clock::now();
  const std::string_view expected = request.Field("expect");
  if (!parser_.http_1_0() && request.Field("host").empty()) {
    Refuse({400, "bad_http", "a request of HTTP/1.1 names its host", {}});
    return false;
  }
  const bool open = Site::IsOpen(PathOf(request.target)) || Gate::IsPreflight(request);
  if (const std::optional<Refusal> refusal = room_.gate.Refuse(request, open, local_)) {
    Refuse(*refusal);
    return false;
  }
  if (!expected.empty() && !SameWord(expected, "100-continue")) {
    Refuse({protocol::kExpectationFailed, "bad_expectation", "only 100-continue can be expected", {}});
    return false;
  }
  if (!expected.empty() && !parser_.http_1_0() && !parser_.done() && input_.empty()) {
    output_ += "HTTP/1.1 100 Continue\r\n\r\n";
    Pump();
  }
  return true;
}

bool Connection::CountBody() {
  if (!parser_.head_done()) return true;
  constexpr size_t kAtOnce = 8;  // bodies of full size
  constexpr double kBytesPerSecond = 16 << 10;
  const size_t bytes = parser_.request().body.size();
  const size_t more = bytes - counted_body_;
  counted_body_ = bytes;
  if (room_.body_bytes.fetch_add(more) + more > kAtOnce * room_.options.max_body) {
    Refuse({protocol::kUnavailable,
            "too_many_bodies",
            "the server holds too many long requests now",
            {{"retry-after", "1"}}});
    return false;
  }
  if (parser_.done()) return true;
  const double patience = room_.options.body_timeout_s + static_cast<double>(bytes) / kBytesPerSecond;
  SetDeadlineAt(body_since_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(patience)));
  return true;
}

void Connection::Open(HttpRequest& request, bool keep_alive) {
  record_ = {};
  record_.id = IdOf(request);
  record_.method = request.method;
  record_.route = Site::RouteOf(PathOf(request.target));
  AnswerForm form;
  form.head_only = request.method == "HEAD";
  form.http_1_0 = parser_.http_1_0();
  form.keep_alive = keep_alive;
  form.fields = room_.gate.CorsFields(request);
  form.fields.push_back({"x-request-id", record_.id});
  if (const std::string_view trace = request.Field("traceparent"); IsTrace(trace)) {
    record_.trace = trace;
    form.fields.push_back({"traceparent", record_.trace});
  }
  exchange_ = std::make_shared<Exchange>(
      std::move(form), [&room = room_] { return room.draining.load(); },
      [weak = weak_from_this(), strand = strand_] {
        if (auto self = weak.lock()) asio::post(strand, [self = std::move(self)] { self->Pump(); });
      });
  answer_since_ = Clock::now();
  state_ = State::kAnswering;
  SetDeadlineAt(Clock::time_point::max());
}

void Connection::Refuse(const Refusal& refusal) {
  HttpRequest request = parser_.TakeRequest();
  Open(request, parser_.done() && parser_.keep_alive());
  const std::shared_ptr<Exchange> exchange = exchange_;
  exchange->Send(ErrorHead(refusal), ErrorJson(refusal));
}

void Connection::Answer() {
  HttpRequest request = parser_.TakeRequest();
  Open(request, parser_.keep_alive());
  if (Gate::IsPreflight(request)) {
    return exchange_->Send({protocol::kNoContent, {}}, "");
  }
  if (room_.site.AnswerAtOnce(request, room_.draining, *exchange_)) return;
  room_.run([self = shared_from_this(), exchange = exchange_,
             request = std::make_shared<HttpRequest>(std::move(request))]() mutable {
    std::unique_ptr<HttpCall> call;
    if (!exchange->left()) call = self->room_.site.Start(std::move(*request), exchange);
    asio::post(self->strand_, [self, exchange, call = std::move(call)]() mutable {
      // Ends here when its answer was sent meanwhile, or nobody waits for it.
      if (self->exchange_ == exchange && !exchange->left()) self->call_ = std::move(call);
    });
  });
}

void Connection::Pump() {
  if (writing_ || state_ == State::kClosed) return;
  if (output_.empty() && exchange_ != nullptr) {
    taken_ = exchange_->Take();
    output_ = std::move(taken_.text);
  }
  if (output_.empty()) {
    if (exchange_ != nullptr && taken_.ended) Finish();
    return;
  }
  writing_ = true;
  if (exchange_ != nullptr) SetDeadline(room_.options.idle_timeout_s);
  stream_->WriteSome(std::string_view(output_).substr(written_),
                     [self = shared_from_this()](ErrorCode error, size_t bytes) { self->DidWrite(error, bytes); });
}

void Connection::DidWrite(ErrorCode error, size_t bytes) {
  writing_ = false;
  if (state_ == State::kClosed) return;
  if (error) return Drop();
  written_ += bytes;
  if (written_ == output_.size()) {
    output_ = {};
    written_ = 0;
    if (exchange_ != nullptr) SetDeadlineAt(Clock::time_point::max());
  }
  Pump();
}

void Connection::Finish() {
  Record(!exchange_->facts().broken);
  Release();
  if (taken_.cut) return Close(/*reset=*/true);
  if (std::exchange(taken_, {}).keep_alive) return AwaitRequest();
  Linger();
}

void Connection::Record(bool whole) {
  const Exchange::Facts facts = exchange_->facts();
  record_.status = facts.status;
  record_.body_bytes = facts.body_bytes;
  record_.tokens = facts.tokens;
  record_.whole = whole;
  record_.ms = std::chrono::duration<double, std::milli>(Clock::now() - answer_since_).count();
  room_.answered(record_);
}

void Connection::Release() {
  call_.reset();
  exchange_.reset();
  room_.body_bytes -= std::exchange(counted_body_, 0);
}

void Connection::Linger() {
  // Closing with bytes unread would make the system throw away what was written.
  state_ = State::kLingering;
  input_ = {};
  SetDeadline(kLingerS);
  stream_->EndWriting([self = shared_from_this()] {});
  Read();
}

void Connection::Drop() {
  if (exchange_ != nullptr) {
    exchange_->Leave();
    Record(/*whole=*/false);
  }
  Close(/*reset=*/false);
}

void Connection::Close(bool reset) {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (exchange_ != nullptr) exchange_->Leave();
  Release();
  timer_.cancel();
  stream_->Close(reset);
  room_.closed(this);
}

void Connection::SetDeadline(double seconds) {
  SetDeadlineAt(Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)));
}

void Connection::SetDeadlineAt(Clock::time_point at) {
  deadline_ = at;
  if (at < armed_for_) Arm();  // one that is armed for earlier looks again then
}

void Connection::Arm() {
  armed_for_ = deadline_;
  timer_.expires_at(armed_for_);
  timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (error || self->state_ == State::kClosed) return;
    self->armed_for_ = Clock::time_point::max();
    if (Clock::now() >= self->deadline_) return self->PassedDeadline();
    if (self->deadline_ != Clock::time_point::max()) self->Arm();
  });
}

void Connection::PassedDeadline() {
  if (state_ == State::kReading && parser_.begun()) {
    const char* const what = parser_.head_done() ? "the body came too slowly" : "the head came too slowly";
    return Refuse({protocol::kTimeout, "request_timeout", what, {}});
  }
  Drop();
}

}  // namespace runahead::server
