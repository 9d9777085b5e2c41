// An API on the demo model, asked without sockets.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/source_dir.h"
#include "protocol/api.h"
#include "tests/cli/process.h"

namespace runahead::protocol {

/// What came of a request.
class RecordedAnswer final : public HttpAnswer {
 public:
  void Send(HttpHead head, std::string body) override {
    Change([&] {
      EXPECT_EQ(stage_, Stage::kNothing);
      head_ = std::move(head);
      body_ = std::move(body);
      stage_ = Stage::kEnded;
    });
  }
  void Begin(HttpHead head) override {
    Change([&] {
      EXPECT_EQ(stage_, Stage::kNothing);
      head_ = std::move(head);
      stage_ = Stage::kBegun;
      streamed_ = true;
    });
  }
  void Write(std::string bytes) override {
    Change([&] {
      EXPECT_EQ(stage_, Stage::kBegun);
      body_ += bytes;
      writes_.push_back(std::move(bytes));
    });
  }
  void End() override {
    Change([&] {
      EXPECT_EQ(stage_, Stage::kBegun);
      stage_ = Stage::kEnded;
    });
  }
  void Break() override {
    Change([&] { stage_ = Stage::kBroken; });
  }

  /// Waits until `done` of this is true, with what is guarded.
  template <typename Done>
  void Await(Done done) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::minutes(1), [&] { return done(*this); }));
  }
  void AwaitEnd() {
    Await([](const RecordedAnswer& answer) { return answer.stage_ >= Stage::kEnded; });
  }
  void AwaitWrites(size_t count) {
    Await([count](const RecordedAnswer& answer) {
      return answer.writes_.size() >= count || answer.stage_ >= Stage::kEnded;
    });
  }

  // Behind the end.
  [[nodiscard]] int status() const { return head_.status; }
  [[nodiscard]] const std::string& body() const { return body_; }
  [[nodiscard]] bool streamed() const { return streamed_; }
  [[nodiscard]] bool broken() const { return stage_ == Stage::kBroken; }
  [[nodiscard]] std::string Field(std::string_view name) const {
    HttpRequest fields;
    fields.fields = head_.fields;
    return std::string(fields.Field(name));
  }
  [[nodiscard]] Json json() const { return Json::parse(body_); }
  /// The events of a stream, without [DONE], which must be the last one where `whole`.
  [[nodiscard]] std::vector<Json> events(bool whole = true) const {
    std::vector<Json> events;
    bool done = false;
    for (const std::string& bytes : writes_) {
      EXPECT_FALSE(done) << "behind the last: " << bytes;
      EXPECT_TRUE(bytes.starts_with("data: ") && bytes.ends_with("\n\n")) << bytes;
      EXPECT_EQ(bytes.find('\n'), bytes.size() - 2) << bytes;
      const std::string data = bytes.substr(6, bytes.size() - 8);
      done = data == "[DONE]";
      if (!done) events.push_back(Json::parse(data));  // which refuses what is not UTF-8
    }
    EXPECT_EQ(done, whole);
    return events;
  }

 private:
  enum class Stage : unsigned char { kNothing, kBegun, kEnded, kBroken };

  template <typename F>
  void Change(F change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Stage stage_ = Stage::kNothing;
  HttpHead head_;
  std::string body_;
  std::vector<std::string> writes_;
  bool streamed_ = false;
};

/// A request that runs.
struct Asking {
  std::shared_ptr<RecordedAnswer> answer;
  std::unique_ptr<HttpCall> call;
};

/// The demo model with a chat template and a shorter context, on two ranks, once for a suite.
class ApiTest : public testing::Test {
 protected:
  static constexpr int kContext = 2048;
  static constexpr const char* kTemplate =
      "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
      "{{ raise_exception('no such role') }}{% endif %}"
      "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{{ tail }}{% endif %}";

  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    const std::filesystem::path demo = std::filesystem::path(SourceDir()) / "models" / "demo";
    for (const char* name :
         {"generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
      std::filesystem::create_symlink(demo / name, *folder_ / name);
    }
    Json config = LoadJson(demo / "config.json");
    config["max_position_embeddings"] = kContext;
    WriteFile(*folder_ / "config.json", config.dump());
    WriteFile(*folder_ / "chat_template.jinja", kTemplate);
    EngineOptions options;
    options.devices = "cpu:2";
    options.threads_per_rank = 1;
    options.tuned_folder = *folder_ / "tuned";
    engine_ = std::make_unique<Engine>(Engine::Load(ModelFolder(), options));
    tokenizer_ = std::make_shared<const Tokenizer>(Tokenizer::Load(ModelFolder()));
  }
  static void TearDownTestSuite() {
    engine_.reset();
    tokenizer_.reset();
    folder_.reset();
  }

  static std::string ModelFolder() { return *folder_ / ""; }
  static const Engine& engine() { return *engine_; }
  static const Tokenizer& tokenizer() { return *tokenizer_; }

  static std::unique_ptr<Api> NewApi(std::function<void(const EndedRequest&)> on_end = {}) {
    return std::make_unique<Api>(*engine_, Model(ModelFolder()), tokenizer_,
                                 std::make_unique<chat::ChatRenderer>(chat::ChatTemplates(ModelFolder())),
                                 ApiOptions{"demo", "", ""}, std::move(on_end));
  }

  Asking Start(const std::string& method, const std::string& target, std::string body = "",
               std::vector<HttpField> fields = {}) {
    auto answer = std::make_shared<RecordedAnswer>();
    auto call = api_->Start({method, target, std::move(fields), std::move(body)}, answer);
    return {std::move(answer), std::move(call)};
  }
  /// Waits for the end.
  std::shared_ptr<RecordedAnswer> Ask(const std::string& method, const std::string& target, std::string body = "",
                                      std::vector<HttpField> fields = {}) {
    Asking asking = Start(method, target, std::move(body), std::move(fields));
    asking.answer->AwaitEnd();
    return asking.answer;
  }
  std::shared_ptr<RecordedAnswer> Post(const std::string& target, const Json& body) {
    return Ask("POST", target, body.dump());
  }
  Json Complete(const Json& body) {
    const auto answer = Post("/v1/completions", body);
    EXPECT_EQ(answer->status(), 200) << answer->body();
    return answer->json();
  }
  std::vector<Json> Stream(const std::string& target, Json body) {
    body["stream"] = true;
    const auto answer = Post(target, body);
    EXPECT_EQ(answer->status(), 200) << answer->body();
    EXPECT_EQ(answer->Field("content-type"), "text/event-stream");
    return answer->events();
  }

  /// A text of about so many words that no other test has.
  static std::string LongText(const std::string& subject, int words) {
    std::string text;
    for (int i = 0; i < words; ++i)
      text += "The " + subject + " came to the harbour on day " + std::to_string(i) + ". ";
    return text;
  }

  std::unique_ptr<Api> api_ = NewApi();

 private:
  static inline std::unique_ptr<TemporaryFolder> folder_;
  static inline std::unique_ptr<Engine> engine_;
  static inline std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace runahead::protocol
