#include "tokenizer/decoder.h"

#include <utility>
#include <vector>

#include "tokenizer/component.h"
#include "tokenizer/decode_stages.h"

namespace runahead::tokenizer {
namespace {

constexpr int64_t kMaxStrip = 1 << 20;
constexpr double kMaxDecodedGrowth = 16;

std::unique_ptr<const Decoder> MakeDecoder(const JsonObject& component);

/// A decoder without settings: a stage's maker.
class SimpleDecoder final : public Decoder {
 public:
  explicit SimpleDecoder(Stage (*make)(Stage)) : make_(make) {}
  Stage Start(Stage next) const override { return make_(std::move(next)); }

 private:
  Stage (*make_)(Stage);
};

class SequenceDecoder final : public Decoder {
 public:
  explicit SequenceDecoder(const JsonObject& component) {
    for (const JsonObject& part : ObjectArray(component, "decoders")) parts_.push_back(MakeDecoder(part));
  }
  double Growth() const override {
    double growth = 1;
    for (const auto& part : parts_) growth *= part->Growth();
    return growth;
  }
  Stage Start(Stage next) const override {
    for (size_t i = parts_.size(); i-- > 0;) next = parts_[i]->Start(std::move(next));
    return next;
  }

 private:
  std::vector<std::unique_ptr<const Decoder>> parts_;
};

class StripDecoder final : public Decoder {
 public:
  explicit StripDecoder(const JsonObject& component)
      : settings_{Character(component, "content"), static_cast<size_t>(component.Int("start", 0, kMaxStrip)),
                  static_cast<size_t>(component.Int("stop", 0, kMaxStrip))} {}
  Stage Start(Stage next) const override { return StripTokens(settings_, std::move(next)); }

 private:
  StripSettings settings_;
};

class ReplaceDecoder final : public Decoder {
 public:
  explicit ReplaceDecoder(const JsonObject& component)
      : pattern_(component, "pattern"), content_(component.String("content")) {}
  double Growth() const override { return pattern_.Growth(content_); }
  Stage Start(Stage next) const override { return ReplaceInTokens(pattern_, content_, std::move(next)); }

 private:
  Pattern pattern_;
  std::string content_;
};

class MetaspaceDecoder final : public Decoder {
 public:
  explicit MetaspaceDecoder(const JsonObject& component) : metaspace_(LoadMetaspace(component)) {}
  Stage Start(Stage next) const override { return SpacesOfMarks(metaspace_, std::move(next)); }

 private:
  Metaspace metaspace_;
};

class PieceDecoder final : public Decoder {
 public:
  explicit PieceDecoder(const PieceSettings& settings) : settings_(settings) {}
  Stage Start(Stage next) const override { return TextOfPieces(settings_, std::move(next)); }

 private:
  PieceSettings settings_;
};

std::unique_ptr<const Decoder> MakeDecoder(const JsonObject& component) {
  const std::string type = component.String("type");
  if (type == "Sequence") return std::make_unique<SequenceDecoder>(component);
  if (type == "ByteLevel") return std::make_unique<SimpleDecoder>(BytesOfCharacters);
  if (type == "ByteFallback") return std::make_unique<SimpleDecoder>(BytesOfTokens);
  if (type == "Fuse") return std::make_unique<SimpleDecoder>(FuseTokens);
  if (type == "Strip") return std::make_unique<StripDecoder>(component);
  if (type == "Replace") return std::make_unique<ReplaceDecoder>(component);
  if (type == "Metaspace") return std::make_unique<MetaspaceDecoder>(component);
  RefuseType(component, "decoder");
}

}  // namespace

std::unique_ptr<const Decoder> LoadDecoder(const JsonObject& file, const char* key) {
  if (!file.Has(key)) return std::make_unique<SimpleDecoder>(JoinWithSpaces);
  auto decoder = MakeDecoder(file.Object(key));
  if (decoder->Growth() > kMaxDecodedGrowth) file.Refuse(key, "a text may become too much longer");
  return decoder;
}

std::unique_ptr<const Decoder> MakePieceDecoder(const PieceSettings& settings) {
  return std::make_unique<PieceDecoder>(settings);
}

std::unique_ptr<DecodeStream> StartDecoding(const Decoder& decoder) {
  auto text = std::make_unique<std::string>();
  Stage stages = decoder.Start(CollectText(*text));
  return std::make_unique<DecodeStream>(std::move(stages), std::move(text));
}

}  // namespace runahead::tokenizer
