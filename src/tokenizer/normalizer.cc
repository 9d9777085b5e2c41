#include "tokenizer/normalizer.h"

#include <utility>
#include <vector>

#include "tokenizer/component.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

std::unique_ptr<const Normalizer> MakeNormalizer(const JsonObject& component);

class SequenceNormalizer final : public Normalizer {
 public:
  explicit SequenceNormalizer(const JsonObject& component) {
    for (const JsonObject& part : ObjectArray(component, "normalizers")) parts_.push_back(MakeNormalizer(part));
  }
  double Growth() const override {
    double growth = 1;
    for (const auto& part : parts_) growth *= part->Growth();
    return growth;
  }

 private:
  std::string Rewrite(std::string text, bool at_start) const override {
    for (const auto& part : parts_) text = part->Apply(std::move(text), at_start);
    return text;
  }

  std::vector<std::unique_ptr<const Normalizer>> parts_;
};

class UnicodeNormalizer final : public Normalizer {
 public:
  explicit UnicodeNormalizer(NormalForm form) : form_(form) {}
  double Growth() const override { return 12; }  // NFKD makes 18 characters of one, U+FDFA

 private:
  std::string Rewrite(std::string text, bool /*at_start*/) const override {
    return Normalize(form_, std::move(text));
  }

  NormalForm form_;
};

class LowercaseNormalizer final : public Normalizer {
 public:
  double Growth() const override { return 2; }

 private:
  std::string Rewrite(std::string text, bool /*at_start*/) const override { return Lowercase(text); }
};

class PrependNormalizer final : public Normalizer {
 public:
  explicit PrependNormalizer(const JsonObject& component) : prepend_(component.String("prepend")) {}
  double Growth() const override { return static_cast<double>(prepend_.size()) / kFewBytes + 1; }

 private:
  static constexpr double kFewBytes = 16;

  std::string Rewrite(std::string text, bool /*at_start*/) const override {
    return text.empty() ? text : prepend_ + text;
  }

  std::string prepend_;
};

class ReplaceNormalizer final : public Normalizer {
 public:
  explicit ReplaceNormalizer(const JsonObject& component)
      : pattern_(component, "pattern"), content_(component.String("content")) {}
  double Growth() const override { return pattern_.Growth(content_); }

 private:
  std::string Rewrite(std::string text, bool /*at_start*/) const override {
    return pattern_.ReplaceAll(text, content_);
  }

  Pattern pattern_;
  std::string content_;
};

class StripNormalizer final : public Normalizer {
 public:
  explicit StripNormalizer(const JsonObject& component)
      : left_(component.Bool("strip_left", true)), right_(component.Bool("strip_right", true)) {}

 private:
  std::string Rewrite(std::string text, bool /*at_start*/) const override {
    size_t begin = 0;
    size_t end = text.size();
    while (left_ && begin < end && IsSpace(Utf8At(text.data() + begin))) begin += Utf8Length(text[begin]);
    while (right_ && end > begin && IsSpace(Utf8At(text.data() + PreviousCharacter(text, end)))) {
      end = PreviousCharacter(text, end);
    }
    return text.substr(begin, end - begin);
  }

  bool left_;
  bool right_;
};

std::unique_ptr<const Normalizer> MakeNormalizer(const JsonObject& component) {
  const std::string type = component.String("type");
  if (type == "Sequence") return std::make_unique<SequenceNormalizer>(component);
  if (type == "NFC") return std::make_unique<UnicodeNormalizer>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeNormalizer>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeNormalizer>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeNormalizer>(NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<LowercaseNormalizer>();
  if (type == "Prepend") return std::make_unique<PrependNormalizer>(component);
  if (type == "Replace") return std::make_unique<ReplaceNormalizer>(component);
  if (type == "Strip") return std::make_unique<StripNormalizer>(component);
  RefuseType(component, "normalizer");
}

}  // namespace

std::unique_ptr<const Normalizer> LoadNormalizer(const JsonObject& file, const char* key) {
  if (!file.Has(key)) return nullptr;
  auto normalizer = MakeNormalizer(file.Object(key));
  if (normalizer->Growth() > kMaxGrowth) file.Refuse(key, "a text may become too much longer");
  return normalizer;
}

}  // namespace runahead::tokenizer
