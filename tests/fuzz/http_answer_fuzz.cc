// Fuzzes what is written of events: whatever an engine tells, an answer is JSON, and a stream is one of events with
// one end; and what becomes of it in HTTP is read back.
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "demo_tokenizer.h"
#include "fuzz_folder.h"
#include "protocol/answer_run.h"
#include "server/exchange.h"

namespace runahead::protocol {
namespace {

/// Takes values from the input's bytes; zeros behind its end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  [[nodiscard]] bool empty() const { return size_ == 0; }
  template <typename T>
  T Take() {
    T value{};
    const size_t taken = std::min(sizeof(T), size_);
    std::memcpy(&value, data_, taken);
    data_ += taken;
    size_ -= taken;
    return value;
  }
  bool Bit() { return (Take<uint8_t>() & 1) != 0; }
  std::string Text() {
    const size_t length = std::min<size_t>(Take<uint8_t>(), size_);
    std::string text(reinterpret_cast<const char*>(data_), length);
    data_ += length;
    size_ -= length;
    return text;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

void Check(bool right) {
  if (!right) __builtin_trap();
}

/// Reads the bytes of an answer back.
class ReadBack {
 public:
  explicit ReadBack(std::string bytes) : rest_(std::move(bytes)) {
    Check(rest_.starts_with("HTTP/1.1 "));
    const std::string head = Until("\r\n\r\n") + "\r\n";
    const auto has = [&](std::string_view line) { return head.find(line) != std::string::npos; };
    if (!has("\r\ntransfer-encoding: chunked\r\n")) {
      Check(has("\r\ncontent-length: " + std::to_string(rest_.size()) + "\r\n"));
      body = std::exchange(rest_, {});
      whole = true;
      return;
    }
    while (!rest_.empty() && !whole) {
      const size_t size = std::stoul(Until("\r\n"), nullptr, 16);
      whole = size == 0;
      body += rest_.substr(0, size);
      Check(rest_.size() >= size + 2 && rest_.compare(size, 2, "\r\n") == 0);
      rest_.erase(0, size + 2);
    }
    Check(rest_.empty());
  }

  std::string body;
  bool whole = false;  // it has an end

 private:
  std::string Until(std::string_view mark) {
    const size_t at = rest_.find(mark);
    Check(at != std::string::npos);
    const std::string found = rest_.substr(0, at);
    rest_.erase(0, at + mark.size());
    return found;
  }

  std::string rest_;
};

/// Checks all that it is told.
class CheckedAnswer final : public HttpAnswer {
 public:
  ~CheckedAnswer() override { Check(!begun_ || ended_ || left_); }

  /// What its connection was given, once nothing comes any more. A server that stops says so in what has no end.
  void CheckHttp() {
    http_.Fail({503, "server_stopped", "stopped", {}});
    sent_ += http_.Take().text;
    const ReadBack read(sent_);
    if (!ended_) {
      Check(read.whole != begun_ && read.body.starts_with(body_));
      const std::string last = read.body.substr(body_.size());
      Check(Json::parse(begun_ ? last.substr(6) : last).contains("error"));
    } else {
      Check(read.body == body_ && read.whole == !failed_);
    }
  }

  void Send(HttpHead head, std::string body) override {
    Check(!begun_ && !ended_);
    const Json json = Json::parse(body);
    Check(json.contains(head.status == 200 ? "choices" : "error"));
    ended_ = true;
    body_ = body;
    http_.Send(std::move(head), std::move(body));
  }
  void Begin(HttpHead head) override {
    Check(!begun_ && !ended_);
    begun_ = true;
    http_.Begin(std::move(head));
  }
  void Write(std::string bytes) override {
    Check(begun_ && !ended_ && !done_ && !failed_);
    Check(bytes.starts_with("data: ") && bytes.find('\n') == bytes.size() - 2 && bytes.back() == '\n');
    const std::string data = bytes.substr(6, bytes.size() - 8);
    done_ = data == "[DONE]";
    if (!done_) failed_ = Json::parse(data).contains("error");
    body_ += bytes;
    http_.Write(std::move(bytes));
    if (data.size() % 2 == 0) sent_ += http_.Take().text;  // now and then
  }
  void End() override {
    Check(begun_ && !ended_ && done_);
    ended_ = true;
    http_.End();
  }
  void Break() override {
    Check(begun_ && !ended_ && failed_);
    ended_ = true;
    http_.Break();
  }
  void Leave() { left_ = true; }

 private:
  bool begun_ = false;
  bool done_ = false;    // [DONE] was written
  bool failed_ = false;  // an error was written
  bool ended_ = false;
  bool left_ = false;  // before its end
  std::string body_;   // all of it so far
  std::string sent_;   // what its connection took so far
  server::Exchange http_{{}, [] { return false; }, [] {}};
};

Asked TakeAsked(Bytes& bytes) {
  Asked asked;
  asked.chat = bytes.Bit();
  asked.stream = bytes.Bit();
  asked.include_usage = bytes.Bit();
  asked.continuous_usage = asked.include_usage && bytes.Bit();
  asked.return_progress = bytes.Bit();
  asked.fields.choices = 1 + bytes.Take<uint8_t>() % 3;
  asked.fields.request.logprobs = bytes.Bit() ? 2 : -1;
  const int prompts = asked.chat ? 1 : 1 + bytes.Take<uint8_t>() % 2;
  for (int i = 0; i < prompts; ++i) asked.prompts.push_back({5, 6, 7});
  if (!asked.chat && bytes.Bit()) asked.echoes.assign(asked.prompts.size(), bytes.Text());
  return asked;
}

TokenLogprob TakeLogprob(Bytes& bytes) { return {bytes.Take<int16_t>(), bytes.Take<float>()}; }

RequestEvent TakeEvent(Bytes& bytes, bool logprobs) {
  RequestEvent event;
  const uint8_t kind = bytes.Take<uint8_t>();
  event.kind = kind % 8 == 0   ? RequestEvent::Kind::kEnd
               : kind % 8 == 1 ? RequestEvent::Kind::kProgress
                               : RequestEvent::Kind::kToken;
  if (event.kind == RequestEvent::Kind::kProgress) {
    event.prompt_done = bytes.Take<int32_t>();
    event.prompt_total = bytes.Take<int32_t>();
    event.cached_tokens = bytes.Take<int32_t>();
    event.predicted_left_ms = bytes.Take<double>();
    return event;
  }
  event.text = bytes.Text();
  event.token = TakeLogprob(bytes);
  if (logprobs) event.likely = {TakeLogprob(bytes), TakeLogprob(bytes)};
  if (event.kind == RequestEvent::Kind::kToken) return event;
  event.finish = static_cast<FinishReason>(bytes.Take<uint8_t>() % 5);
  event.error = bytes.Text();
  event.stats.ttft_ms = bytes.Take<double>();
  event.stats.members = {0, 1};
  event.stats.cuts = {0, bytes.Take<int16_t>(), 3};
  event.stats.new_tokens = bytes.Take<int32_t>();
  return event;
}

}  // namespace
}  // namespace runahead::protocol

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace runahead;
  using namespace runahead::protocol;
  Bytes bytes(data, size);
  static const auto service = std::make_shared<Service>("demo", "print", fuzz::DemoTokenizer(), nullptr);
  const Asked asked = TakeAsked(bytes);
  const auto answer = std::make_shared<CheckedAnswer>();
  AnswerRun run(service, asked, answer);
  std::vector<bool> ended(static_cast<size_t>(run.choices()));
  for (int i = 0; i < run.choices(); ++i) run.Enter(i, 3);
  const uint8_t before = bytes.Take<uint8_t>();  // events before it opens
  for (int events = 0; !bytes.empty(); ++events) {
    if (events == before) run.Open(bytes.Take<double>());
    const int index = bytes.Take<uint8_t>() % run.choices();
    if (ended[static_cast<size_t>(index)]) continue;
    RequestEvent event = TakeEvent(bytes, asked.fields.request.logprobs >= 0);
    ended[static_cast<size_t>(index)] = event.kind == RequestEvent::Kind::kEnd;
    run.Deliver(index, std::move(event));
  }
  answer->CheckHttp();
  answer->Leave();
  run.Leave();
  for (int i = 0; i < run.choices(); ++i) {
    if (ended[static_cast<size_t>(i)]) continue;
    RequestEvent end;
    end.kind = RequestEvent::Kind::kEnd;
    end.finish = FinishReason::kCancelled;
    run.Deliver(i, std::move(end));
  }
  if (Json::parse(service->board().RequestsJson()) != Json::array()) __builtin_trap();
  (void)Json::parse(service->board().RecentJson(""));
  return 0;
}
