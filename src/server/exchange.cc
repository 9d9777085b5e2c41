#include "server/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "protocol/http_status.h"

namespace runahead::server {

using protocol::HttpField;

Exchange::Exchange(AnswerForm form, std::function<bool()> draining, std::function<void()> wake)
    : form_(std::move(form)), draining_(std::move(draining)), wake_(std::move(wake)) {}

void Exchange::WriteHead(protocol::HttpHead head, const std::string* body) {
  constexpr std::string_view kEvents = "text/event-stream";
  status_ = head.status;
  for (const protocol::HttpField& field : head.fields) {
    events_ = events_ || (SameWord(field.name, "content-type") && std::string_view(field.value).starts_with(kEvents));
  }
  const bool no_content = head.status == protocol::kNoContent || head.status == protocol::kNotModified;
  bodyless_ = form_.head_only || no_content;
  chunked_ = body == nullptr && !form_.http_1_0;
  keep_alive_ = form_.keep_alive && (body != nullptr || chunked_) && !draining_();
  for (const HttpField& field : form_.fields) {
    const auto same = [&](const HttpField& other) { return other.name == field.name; };
    if (std::none_of(head.fields.begin(), head.fields.end(), same)) head.fields.push_back(field);
  }
  head.fields.push_back({"date", HttpDate()});
  if (body != nullptr && !no_content) head.fields.push_back({"content-length", fmt::format("{}", body->size())});
  if (chunked_) head.fields.push_back({"transfer-encoding", "chunked"});
  if (!keep_alive_) {
    head.fields.push_back({"connection", "close"});
  } else if (form_.http_1_0) {
    head.fields.push_back({"connection", "keep-alive"});
  }
  pending_ += HeadText(head);
}

void Exchange::Send(protocol::HttpHead head, std::string body) {
  std::unique_lock lock(mutex_);
  if (ended_ || left_ || status_ != 0) return;
  WriteHead(std::move(head), &body);
  if (!bodyless_) {
    body_bytes_ += body.size();
    pending_ += body;
  }
  ended_ = true;
  Wake(std::move(lock));
}

void Exchange::Begin(protocol::HttpHead head) {
  std::unique_lock lock(mutex_);
  if (ended_ || left_ || status_ != 0) return;
  WriteHead(std::move(head), nullptr);
  Wake(std::move(lock));
}

void Exchange::Write(std::string bytes) {
  std::unique_lock lock(mutex_);
  if (ended_ || left_ || status_ == 0 || bytes.empty() || bodyless_) return;
  body_bytes_ += bytes.size();
  if (chunked_) {
    AppendChunk(pending_, bytes);
  } else {
    pending_ += bytes;
  }
  Wake(std::move(lock));
}

void Exchange::End() {
  std::unique_lock lock(mutex_);
  if (ended_ || left_ || status_ == 0) return;
  if (chunked_ && !bodyless_) pending_ += kLastChunk;
  ended_ = true;
  Wake(std::move(lock));
}

void Exchange::Break() {
  std::unique_lock lock(mutex_);
  if (ended_ || left_) return;
  keep_alive_ = false;
  broken_ = true;
  ended_ = true;
  Wake(std::move(lock));
}

void Exchange::Note(const protocol::AnswerFacts& facts) {
  const std::lock_guard lock(mutex_);
  tokens_ = facts;
}

void Exchange::Fail(const Refusal& refusal) {
  bool events = false;
  {
    const std::lock_guard lock(mutex_);
    events = events_;
  }
  Send(ErrorHead(refusal), ErrorJson(refusal));
  if (events) Write(fmt::format("data: {}\n\n", ErrorJson(refusal)));
  Break();
}

Exchange::Bytes Exchange::Take() {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  return {std::exchange(pending_, {}), ended_, ended_ && keep_alive_, broken_ && !chunked_};
}

void Exchange::Leave() {
  const std::lock_guard lock(mutex_);
  left_ = true;
  pending_ = {};
}

bool Exchange::left() const {
  const std::lock_guard lock(mutex_);
  return left_;
}

Exchange::Facts Exchange::facts() const {
  const std::lock_guard lock(mutex_);
  return {status_, body_bytes_, broken_, tokens_};
}

void Exchange::Wake(std::unique_lock<std::mutex> lock) {
  if (std::exchange(woken_, true)) return;
  lock.unlock();
  wake_();
}

}  // namespace runahead::server
