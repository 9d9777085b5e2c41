// Reads tokenizer.json, and from the files beside it what changes its ids.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "runahead/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer_parts.h"

namespace runahead::tokenizer {
namespace {

class BpeModel final : public Model {
 public:
  explicit BpeModel(const JsonObject& model) : bpe_(model) {}
  std::unique_ptr<Run> Start() const override { return std::make_unique<BpeRun>(bpe_); }
  const Vocab& vocab() const override { return bpe_.vocab(); }

 private:
  class BpeRun final : public Run {
   public:
    explicit BpeRun(const Bpe& bpe) : bpe_(bpe) {}
    void Encode(std::string_view piece, std::vector<int32_t>& out) override { bpe_.Encode(piece, scratch_, out); }

   private:
    const Bpe& bpe_;
    BpeScratch scratch_;
  };

  Bpe bpe_;
};

std::unique_ptr<const Model> LoadModel(const JsonObject& file) {
  const JsonObject model = file.Object("model");
  // Older files leave the type out; only BPE has merges.
  const std::string type = model.String("type", model.Has("merges") ? "BPE" : "");
  if (type != "BPE") RefuseType(model, "model");
  return std::make_unique<BpeModel>(model);
}

/// tokenizer_config.json or special_tokens_map.json: the names of special tokens, and tokens the main file may lack.
class SideFile {
 public:
  explicit SideFile(const std::filesystem::path& path)
      : json_(std::filesystem::exists(path) ? LoadJson(path) : Json::object()), object_(json_, path.string()) {}

  [[nodiscard]] const JsonObject& object() const { return object_; }

  /// The token that a field such as bos_token names: a string, or an object like an added token.
  [[nodiscard]] std::optional<AddedToken> NamedToken(const char* key) const {
    if (!object_.Has(key)) return std::nullopt;
    AddedToken token;
    if (object_.At(key).is_string()) {
      token.content = object_.String(key);
    } else {
      token = LoadAddedToken(object_.Object(key));
    }
    token.special = true;
    return token;
  }

 private:
  Json json_;
  JsonObject object_;
};

constexpr std::array kNamedTokens = {"bos_token", "eos_token", "unk_token", "sep_token",
                                     "pad_token", "cls_token", "mask_token"};
constexpr std::array kListedTokens = {"additional_special_tokens", "extra_special_tokens"};

class Loader {
 public:
  explicit Loader(const std::filesystem::path& model_dir)
      : json_(LoadJson(model_dir / "tokenizer.json")),
        file_(json_, (model_dir / "tokenizer.json").string()),
        config_(model_dir / "tokenizer_config.json"),
        special_map_(model_dir / "special_tokens_map.json") {}

  std::shared_ptr<const TokenizerParts> Run() {
    parts_->origin = file_.origin();
    parts_->normalizer = LoadNormalizer(file_, "normalizer");
    parts_->pre_tokenizer = LoadPreTokenizer(file_, "pre_tokenizer");
    parts_->model = LoadModel(file_);
    parts_->decoder = LoadDecoder(file_, "decoder");
    AddTokens();
    AddTokensOfConfig();
    parts_->added_tokens.Finish(parts_->normalizer.get());
    parts_->IndexTokens();
    parts_->bos_id = IdOfName("bos_token");
    parts_->eos_id = IdOfName("eos_token");
    parts_->special = LoadPostProcessor(file_, "post_processor");
    for (const int32_t id : parts_->special.items()) {
      if (id != Template::kText) static_cast<void>(parts_->TokenOf(id));  // throws for an id without a token
    }
    if (!parts_->bos_id.has_value() && parts_->special.items()[0] != Template::kText) {
      parts_->bos_id = parts_->special.items()[0];
    }
    return parts_;
  }

 private:
  int32_t Add(const AddedToken& token) { return parts_->added_tokens.Add(token, parts_->model->vocab()); }

  void AddTokens() {
    if (!file_.Has("added_tokens")) return;
    for (const JsonObject& entry : ObjectArray(file_, "added_tokens")) {
      const auto written = static_cast<int32_t>(entry.Int("id", 0, kMaxTokenId));
      const AddedToken token = LoadAddedToken(entry);
      if (token.content.empty()) continue;
      if (const int32_t id = Add(token); id != written) {
        entry.Refuse("id", fmt::format("token \"{}\" has the id {} in the vocabulary", token.content, id));
      }
    }
  }

  // Tokens that only the configuration knows are added behind the others, as transformers does.
  void AddTokensOfConfig() {
    const JsonObject& config = config_.object();
    if (config.Has("added_tokens_decoder")) {
      std::vector<std::pair<int32_t, AddedToken>> tokens;
      const JsonObject decoder = config.Object("added_tokens_decoder");
      for (const auto& [id, entry] : decoder.json().items()) {
        const std::string origin = fmt::format("{}: {}", decoder.origin(), id);
        const bool number = !id.empty() && id.size() < 9 && id.find_first_not_of("0123456789") == std::string::npos;
        if (!number) throw ConfigError(fmt::format("{}: expected an id", origin));
        tokens.emplace_back(std::stoi(id), LoadAddedToken(JsonObject(entry, origin)));
      }
      std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (const auto& [id, token] : tokens) AddMissing(token);
    }
    for (const char* name : kNamedTokens) {
      if (const auto token = Named(name)) AddMissing(*token);
    }
    for (const SideFile* side : {&config_, &special_map_}) {
      for (const char* list : kListedTokens) AddListed(side->object(), list);
    }
  }

  void AddListed(const JsonObject& object, const char* list) {
    if (!object.Has(list) || !object.At(list).is_array()) return;
    for (const Json& entry : object.At(list)) {
      AddedToken token;
      if (entry.is_string()) {
        token.content = entry.get<std::string>();
      } else {
        token = LoadAddedToken(JsonObject(entry, fmt::format("{}: {}", object.origin(), list)));
      }
      token.special = true;
      AddMissing(token);
    }
  }

  void AddMissing(const AddedToken& token) {
    if (token.content.empty() || parts_->added_tokens.Find(token.content) != kNoToken) return;
    static_cast<void>(Add(token));
  }

  [[nodiscard]] std::optional<AddedToken> Named(const char* name) const {
    const auto token = config_.NamedToken(name);
    return token.has_value() ? token : special_map_.NamedToken(name);
  }

  [[nodiscard]] std::optional<int32_t> IdOfName(const char* name) const {
    const auto token = Named(name);
    if (!token.has_value() || token->content.empty()) return std::nullopt;
    return parts_->added_tokens.Find(token->content);
  }

  Json json_;
  JsonObject file_;
  SideFile config_;
  SideFile special_map_;
  std::shared_ptr<TokenizerParts> parts_ = std::make_shared<TokenizerParts>();
};

}  // namespace

std::shared_ptr<const TokenizerParts> LoadTokenizerJson(const std::filesystem::path& model_dir) {
  return Loader(model_dir).Run();
}

}  // namespace runahead::tokenizer
