#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "model_folder.h"
#include "runahead/error.h"
#include "tokenizer/decoder.h"

namespace runahead::tokenizer {
namespace {

using Texts = std::vector<std::string>;

Json Part(const std::string& type) { return {{"type", type}}; }
Json Sequence(const Json& parts) { return {{"type", "Sequence"}, {"decoders", parts}}; }
Json Strip(int start, int stop) { return {{"type", "Strip"}, {"content", " "}, {"start", start}, {"stop", stop}}; }
Json Replace() { return {{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}}; }
Json Llama() { return Sequence({Replace(), Part("ByteFallback"), Part("Fuse"), Strip(1, 0)}); }
Json Metaspace(const std::string& scheme) {
  return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}};
}

// Feeds the tokens, in order; the last text is Flush's.
Texts Decoded(const Json& decoder, const Texts& tokens) {
  Json file = SmallTokenizer({});
  file["decoder"] = decoder;
  std::vector<int32_t> ids;
  for (const std::string& token : tokens) {
    Json& vocab = file["model"]["vocab"];
    if (!vocab.contains(token)) vocab[token] = vocab.size();
    ids.push_back(vocab[token]);
  }
  const Tokenizer tokenizer = LoadSmall(file);
  Texts texts = Stream(tokenizer, ids);
  EXPECT_EQ(std::accumulate(texts.begin(), texts.end(), std::string()), tokenizer.Decode(ids));
  return texts;
}

TEST(Decoder, LlamaDropsTheFirstSpaceOnly) {
  EXPECT_EQ(Decoded(Llama(), {"▁a", "▁b", "c"}), (Texts{"a", " b", "c", ""}));
  EXPECT_EQ(Decoded(Llama(), {"▁▁a", "▁"}), (Texts{" a", " ", ""}));
  EXPECT_EQ(Decoded(Llama(), {"▁", "▁a"}), (Texts{"", " a", ""}));
}

TEST(Decoder, ByteTokensWaitForTheEndOfTheirRun) {
  EXPECT_EQ(Decoded(Llama(), {"<0xC3>", "<0xA9>", "x"}), (Texts{"", "", "éx", ""}));
  EXPECT_EQ(Decoded(Llama(), {"a", "<0xF0>", "<0x9F>"}), (Texts{"a", "", "", "\uFFFD\uFFFD"}));
  EXPECT_EQ(Decoded(Llama(), {"<0x41>", "<0xFF>", "b"}), (Texts{"", "", "\uFFFD\uFFFDb", ""}))
      << "one broken byte breaks its run";
  EXPECT_EQ(Decoded(Llama(), {"<0x4g>", "<0x041>"}), (Texts{"<0x4g>", "<0x041>", ""}));
}

TEST(Decoder, ByteLevelHoldsUnfinishedCharacters) {
  EXPECT_EQ(Decoded(Part("ByteLevel"), {"Ġa", "Ã", "©!", "ðŁ", "ĻĤ"}), (Texts{" a", "", "é!", "", "🙂", ""}));
  EXPECT_EQ(Decoded(Part("ByteLevel"), {"ðŁ", "a", "Ã"}), (Texts{"", "\uFFFDa", "", "\uFFFD"}));
  EXPECT_EQ(Decoded(Part("ByteLevel"), {"日本", "Ġ日"}), (Texts{"日本", "Ġ日", ""}))
      << "tokens outside the alphabet are plain text";
}

TEST(Decoder, MetaspaceTreatsTheFirstToken) {
  EXPECT_EQ(Decoded(Metaspace("always"), {"▁a", "▁b▁"}), (Texts{"a", " b ", ""}));
  EXPECT_EQ(Decoded(Metaspace("never"), {"▁a", "▁b"}), (Texts{" a", " b", ""}));
}

TEST(Decoder, StripAndReplaceWorkPerToken) {
  EXPECT_EQ(Decoded(Strip(1, 1), {"  a  ", " b "}), (Texts{" a ", "b", ""}));
  EXPECT_EQ(Decoded(Strip(2, 2), {"   ", " "}), (Texts{"", "", ""}));
  EXPECT_EQ(Decoded(Sequence({Part("Fuse"), Strip(0, 1)}), {"a ", "b", " "}), (Texts{"", "", "", "a b"}));
  EXPECT_EQ(Decoded(Sequence({Part("Fuse"), Replace()}), {"a▁", "▁b"}), (Texts{"", "", "a  b"}));
  EXPECT_EQ(Decoded(Sequence({Part("Fuse"), Part("ByteLevel")}), {"Ã", "©日"}), (Texts{"", "", "Ã©日"}));
}

TEST(Decoder, WithoutOneTokensAreJoinedBySpaces) {
  EXPECT_EQ(Decoded(nullptr, {"a", "b", "c"}), (Texts{"a", " b", " c", ""}));
}

TEST(Decoder, SpecialTokensAreSkippedOnRequest) {
  Json file = SmallTokenizer({"▁a", "▁b"});
  file["decoder"] = Llama();
  file["added_tokens"] = {AddedEntry(2, "<s>"), AddedEntry(3, "<kept>", false)};
  const Tokenizer tokenizer = LoadSmall(file);
  const std::vector<int32_t> ids = {2, 0, 3, 1, 2};
  EXPECT_EQ(tokenizer.Decode(ids), "a<kept> b");
  EXPECT_EQ(tokenizer.Decode(ids, false), "<s> a<kept> b<s>");
  EXPECT_EQ(Stream(tokenizer, ids), (Texts{"", "a", "<kept>", " b", "", ""}));
}

TEST(Decoder, StreamsStartAnewAfterFlush) {
  Json file = SmallTokenizer({"▁a", "<0xC3>"});
  file["decoder"] = Llama();
  StreamDecoder stream(LoadSmall(file));
  EXPECT_EQ(stream.Feed(0), "a");
  EXPECT_EQ(stream.Feed(1), "");
  EXPECT_EQ(stream.Flush(), "\uFFFD");
  EXPECT_EQ(stream.Feed(0), "a");
}

TEST(Decoder, IdsWithoutATokenAreNamed) {
  Json file = SmallTokenizer({"a"});
  file["model"]["vocab"]["b"] = 5;
  const Tokenizer tokenizer = LoadSmall(file);
  EXPECT_EQ(tokenizer.vocab_size(), 6);
  for (const int32_t id : {-1, 3, 6, 1 << 30}) {
    try {
      static_cast<void>(tokenizer.Decode(std::vector<int32_t>{0, id}));
      FAIL() << id;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("no token has the id " + std::to_string(id)), std::string::npos);
    }
  }
  StreamDecoder stream(tokenizer);
  EXPECT_THROW(stream.Feed(9), ConfigError);
  EXPECT_EQ(stream.Feed(5), "b") << "the stream goes on";
}

TEST(Decoder, RefusesOtherTypes) {
  EXPECT_THROW(Decoded(Part("WordPiece"), {}), ConfigError);
  EXPECT_THROW(Decoded(Strip(-1, 0), {}), ConfigError);
  EXPECT_THROW(Decoded(Strip(0, 1 << 30), {}), ConfigError);
  EXPECT_THROW(Decoded(Sequence({{{"type", "Strip"}, {"content", ""}, {"start", 0}, {"stop", 0}}}), {}), ConfigError);
}

// Whatever the ids, streaming gives the text of decoding them at once, in whole characters.
TEST(Decoder, StreamingEqualsDecoding) {
  std::mt19937 random(5);
  const Texts tokens = {"▁a", "b", "▁", "<0xC3>", "<0xA9>", "<0x41>", "Ã", "©", "ðŁ", "日", "▁▁", " "};
  for (const Json& decoder :
       {Llama(), Part("ByteLevel"), Metaspace("first"), Json(nullptr), Sequence({Part("ByteFallback"), Strip(1, 1)}),
        Sequence({Part("Fuse"), Metaspace("always")})}) {
    for (int round = 0; round < 50; ++round) {
      Texts chosen;
      while (chosen.size() < round % 12U) chosen.push_back(tokens[random() % tokens.size()]);
      Decoded(decoder, chosen);
    }
  }
}

}  // namespace
}  // namespace runahead::tokenizer
