#include "protocol/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/units.h"
#include "protocol/api_error.h"
#include "protocol/asked.h"
#include "protocol/chat_prompts.h"
#include "protocol/completion_call.h"
#include "protocol/http_status.h"
#include "protocol/http_text.h"
#include "protocol/json_text.h"
#include "protocol/openapi.h"
#include "protocol/service.h"
#include "protocol/status_json.h"
#include "protocol/text_routes.h"
#include "runahead/version.h"

namespace runahead::protocol {
namespace {

using OrderedJson = nlohmann::ordered_json;

void SendJson(HttpAnswer& answer, int status, std::string body, std::vector<HttpField> fields = {}) {
  fields.push_back({"content-type", "application/json"});
  answer.Send({status, std::move(fields)}, std::move(body));
}

/// The program's version and commit.
std::string Fingerprint() {
  const BuildInfo build = DescribeBuild();
  return build.commit.empty() ? "runahead-" + build.version
                              : fmt::format("runahead-{}-{}", build.version, build.commit);
}

/// The folder's own name, also of "DIR/".
std::string NameOf(const std::filesystem::path& dir) {
  return (dir.has_filename() ? dir : dir.parent_path()).filename().string();
}

/// Takes the deadline for the first token from the request's fields. Throws ApiError.
void ReadDeadline(const HttpRequest& request, Request& asked) {
  static constexpr std::string_view kField = "x-runahead-deadline-ms";
  constexpr double kLongest = 1e12;  // ms
  const bool asked_for = std::any_of(request.fields.begin(), request.fields.end(),
                                     [](const HttpField& field) { return field.name == kField; });
  if (!asked_for) return;
  const std::string_view text = request.Field(kField);
  double ms = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ms);
  if (error != std::errc() || end != text.data() + text.size() || !(ms > 0 && ms <= kLongest)) {
    throw ApiError(kBadRequest, fmt::format("{}: expected a number of ms above 0, got '{}'", kField, text),
                   "invalid_value", std::string(kField));
  }
  asked.ttft_deadline_s = ms / kMsPerSecond;
}

}  // namespace

/// What an Api holds.
class Api::Parts {
 public:
  Parts(Engine engine, const Model& model, const std::shared_ptr<const Tokenizer>& tokenizer,
        std::unique_ptr<chat::ChatRenderer> renderer, ApiOptions options,
        std::function<void(const EndedRequest&)> on_end)
      : engine_(std::move(engine)),
        tokenizer_(tokenizer),
        limits_{model.vocab(), model.max_positions(), tokenizer.get(), std::move(options.no_tokenizer),
                EndTokens(model, tokenizer.get())},
        chat_(std::move(renderer), tokenizer, std::move(options.no_chat)),
        service_(std::make_shared<Service>(
            options.model_name.empty() ? NameOf(model.dir()) : std::move(options.model_name), Fingerprint(),
            tokenizer, std::move(on_end))) {
    if (limits_.no_tokenizer.empty()) limits_.no_tokenizer = "the model has no tokenizer";
  }
  ~Parts() { service_->Close(); }
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;

  /// Null where the whole answer was sent.
  std::unique_ptr<HttpCall> Run(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer) {
    const std::string path = PathOf(request.target);
    for (const Route& route : kRoutes) {
      if (route.is_prefix ? !path.starts_with(route.path) : path != route.path) continue;
      if (request.method == route.method) return (this->*route.run)(request, answer);
      ApiError error(kNotAllowed, fmt::format("{} takes {}, got {}", path, route.method, request.method),
                     "method_not_allowed");
      error.Add({"allow", std::string(route.method)});
      throw error;
    }
    throw ApiError(kNotFound, fmt::format("there is nothing at {}", path), "not_found");
  }

  /// `known`: the newest of the recent requests that is known already; empty: none.
  [[nodiscard]] std::string StateJson(std::string_view known) const;

 private:
  using Runner = std::unique_ptr<HttpCall> (Parts::*)(const HttpRequest&, const std::shared_ptr<HttpAnswer>&);
  struct Route {
    std::string_view method;
    std::string_view path;
    bool is_prefix;
    Runner run;
  };
  static const std::array<Route, 8> kRoutes;

  std::unique_ptr<HttpCall> ListModels(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
  std::unique_ptr<HttpCall> ShowModel(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
  std::unique_ptr<HttpCall> ShowState(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
  std::unique_ptr<HttpCall> Describe(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
  std::unique_ptr<HttpCall> Complete(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
  std::unique_ptr<HttpCall> Chat(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
  std::unique_ptr<HttpCall> Tokenize(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
  std::unique_ptr<HttpCall> Detokenize(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);

  /// The body as JSON, an object that names no other model. Throws ApiError and ConfigError.
  [[nodiscard]] Json BodyOf(const HttpRequest& request) const;
  /// Throws ApiError for a name that is not the model's.
  void CheckModel(const std::string& name) const;
  [[nodiscard]] OrderedJson ModelJson() const;
  std::unique_ptr<HttpCall> Submit(const HttpRequest& request, Asked asked,
                                   const std::shared_ptr<HttpAnswer>& answer);

  Engine engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  ModelLimits limits_;
  ChatPrompts chat_;
  std::shared_ptr<Service> service_;
  int64_t created_ = UnixSeconds();
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

const std::array<Api::Parts::Route, 8> Api::Parts::kRoutes = {{{"GET", "/v1/models", false, &Parts::ListModels},
                                                               {"GET", "/v1/models/", true, &Parts::ShowModel},
                                                               {"POST", "/v1/completions", false, &Parts::Complete},
                                                               {"POST", "/v1/chat/completions", false, &Parts::Chat},
                                                               {"POST", "/tokenize", false, &Parts::Tokenize},
                                                               {"POST", "/detokenize", false, &Parts::Detokenize},
                                                               {"GET", "/runahead/state", false, &Parts::ShowState},
                                                               {"GET", "/openapi.json", false, &Parts::Describe}}};

OrderedJson Api::Parts::ModelJson() const {
  return {{"id", service_->model()},
          {"object", "model"},
          {"created", created_},
          {"owned_by", "runahead"},
          {"max_model_len", limits_.context}};
}

std::unique_ptr<HttpCall> Api::Parts::ListModels(const HttpRequest& /*request*/,
                                                 const std::shared_ptr<HttpAnswer>& answer) {
  const OrderedJson list = {{"object", "list"}, {"data", OrderedJson::array({ModelJson()})}};
  SendJson(*answer, kOk, list.dump());
  return nullptr;
}

std::unique_ptr<HttpCall> Api::Parts::ShowModel(const HttpRequest& request,
                                                const std::shared_ptr<HttpAnswer>& answer) {
  constexpr std::string_view kPrefix = "/v1/models/";
  CheckModel(PathOf(request.target).substr(kPrefix.size()));
  SendJson(*answer, kOk, ModelJson().dump());
  return nullptr;
}

std::unique_ptr<HttpCall> Api::Parts::ShowState(const HttpRequest& request,
                                                const std::shared_ptr<HttpAnswer>& answer) {
  SendJson(*answer, kOk, StateJson(QueryOf(request.target, "known")), {{"cache-control", "no-store"}});
  return nullptr;
}

std::unique_ptr<HttpCall> Api::Parts::Describe(const HttpRequest& /*request*/,
                                               const std::shared_ptr<HttpAnswer>& answer) {
  SendJson(*answer, kOk, OpenApiOf(service_->model(), limits_.vocab));
  return nullptr;
}

std::unique_ptr<HttpCall> Api::Parts::Complete(const HttpRequest& request,
                                               const std::shared_ptr<HttpAnswer>& answer) {
  return Submit(request, ReadCompletion(BodyOf(request), limits_), answer);
}

std::unique_ptr<HttpCall> Api::Parts::Chat(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer) {
  const Json body = BodyOf(request);
  Asked asked = ReadChat(body, limits_);
  AddConversation(body, chat_.Ids(request.body, body), limits_, asked);
  return Submit(request, std::move(asked), answer);
}

std::unique_ptr<HttpCall> Api::Parts::Tokenize(const HttpRequest& request,
                                               const std::shared_ptr<HttpAnswer>& answer) {
  SendJson(*answer, kOk, Tokenized(request.body, BodyOf(request), limits_, chat_, service_->texts()));
  return nullptr;
}

std::unique_ptr<HttpCall> Api::Parts::Detokenize(const HttpRequest& request,
                                                 const std::shared_ptr<HttpAnswer>& answer) {
  SendJson(*answer, kOk, Detokenized(BodyOf(request), limits_));
  return nullptr;
}

Json Api::Parts::BodyOf(const HttpRequest& request) const {
  CheckMediaType(request);
  Json body = ParseJson(request.body, "request");
  const JsonObject json(body, "request");
  if (json.Has("model")) CheckModel(json.String("model"));
  return body;
}

void Api::Parts::CheckModel(const std::string& name) const {
  if (name == service_->model()) return;
  throw ApiError(kNotFound, fmt::format("the model '{}' is not here, only '{}' is", name, service_->model()),
                 "model_not_found", "model");
}

std::unique_ptr<HttpCall> Api::Parts::Submit(const HttpRequest& request, Asked asked,
                                             const std::shared_ptr<HttpAnswer>& answer) {
  ReadDeadline(request, asked.fields.request);
  return RunCompletion(engine_, tokenizer_, service_, asked, answer);
}

std::string Api::Parts::StateJson(std::string_view known) const {
  const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - begin_;
  return fmt::format(R"({{"model":{},"chat":{},"uptime_s":{},{},"requests":{},"recent":{}}})",
                     Quoted(service_->model()), chat_.available(), NumberText(uptime.count()),
                     StatusFields(engine_.Status()), service_->board().RequestsJson(),
                     service_->board().RecentJson(known));
}

Api::Api(Engine engine, const Model& model, const std::shared_ptr<const Tokenizer>& tokenizer,
         std::unique_ptr<chat::ChatRenderer> renderer, ApiOptions options,
         std::function<void(const EndedRequest&)> on_end)
    : parts_(std::make_unique<Parts>(std::move(engine), model, tokenizer, std::move(renderer), std::move(options),
                                     std::move(on_end))) {}

Api::~Api() = default;

std::unique_ptr<HttpCall> Api::Start(HttpRequest request, std::shared_ptr<HttpAnswer> answer) {
  std::unique_ptr<HttpCall> call;
  try {
    call = parts_->Run(request, answer);
  } catch (const std::exception& thrown) {
    const ApiError error = AsApiError(thrown);
    SendJson(*answer, error.status(), ErrorBody(error), error.fields());
  }
  return call != nullptr ? std::move(call) : std::make_unique<HttpCall>();
}

std::string Api::StateJson() const { return parts_->StateJson(""); }

}  // namespace runahead::protocol
