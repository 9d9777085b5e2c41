#include "protocol/api.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "protocol/api_error.h"

namespace runahead::protocol {
namespace {

using OrderedJson = nlohmann::ordered_json;

int64_t UnixSeconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

void SendJson(HttpAnswer& answer, int status, std::string body, std::vector<HttpField> fields = {}) {
  fields.push_back({"content-type", "application/json"});
  answer.Send({status, std::move(fields)}, std::move(body));
}

}  // namespace

class Api::Parts {
 public:
  Parts(Engine engine, const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
        std::unique_ptr<chat::ChatRenderer> renderer, ApiOptions options,
        std::function<void(const EndedRequest&)> on_end)
      : engine_(std::move(engine)),
        context_(model.max_positions()),
        tokenizer_(std::move(tokenizer)),
        renderer_(std::move(renderer)),
        options_(std::move(options)),
        on_end_(std::move(on_end)),
        created_(UnixSeconds()) {
    if (options_.model_name.empty()) options_.model_name = model.dir().filename().string();
  }

  void Answer(const HttpRequest& request, HttpAnswer& answer) {
    const std::string_view path = std::string_view(request.target).substr(0, request.target.find('?'));
    if (path == "/v1/models") {
      const OrderedJson list = {{"object", "list"}, {"data", OrderedJson::array({ModelJson()})}};
      return SendJson(answer, 200, list.dump());
    }
    throw ApiError(404, fmt::format("there is nothing at {}", path), "not_found");
  }

 private:
  [[nodiscard]] OrderedJson ModelJson() const {
    return {{"id", options_.model_name},
            {"object", "model"},
            {"created", created_},
            {"owned_by", "runahead"},
            {"max_model_len", context_}};
  }

  Engine engine_;
  int64_t context_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<chat::ChatRenderer> renderer_;
  ApiOptions options_;
  std::function<void(const EndedRequest&)> on_end_;
  int64_t created_;  // Unix time, s
};

Api::Api(Engine engine, const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
         std::unique_ptr<chat::ChatRenderer> renderer, ApiOptions options,
         std::function<void(const EndedRequest&)> on_end)
    : parts_(std::make_shared<Parts>(std::move(engine), model, std::move(tokenizer), std::move(renderer),
                                     std::move(options), std::move(on_end))) {}

Api::~Api() = default;

std::unique_ptr<HttpCall> Api::Start(HttpRequest request, std::shared_ptr<HttpAnswer> answer) {
  try {
    parts_->Answer(request, *answer);
  } catch (const std::exception& thrown) {
    const ApiError error = AsApiError(thrown);
    SendJson(*answer, error.status(), ErrorBody(error), error.fields());
  }
  return std::make_unique<HttpCall>();
}

std::string Api::StateJson() const { return "{}"; }

}  // namespace runahead::protocol
