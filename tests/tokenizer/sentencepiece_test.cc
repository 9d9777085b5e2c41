// SentencePiece models: each rule on a vocabulary small enough to work out by hand, and files that must be refused.
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "runahead/error.h"
#include "sentencepiece_model.h"

namespace runahead::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

std::string ErrorOf(std::string_view bytes) {
  try {
    LoadPieces(bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// Normal pieces with the scores -1, -2, ..., so that earlier ones merge first.
std::string Pieces(const std::vector<std::string>& texts) {
  std::string bytes;
  float score = 0;
  for (const std::string& text : texts) bytes += PieceBytes(text, --score);
  return bytes;
}

// Ids: 3 bc, 4 ab, 5 a, 6 b, 7 c.
std::string AbcPieces() { return FirstPieces() + Pieces({"bc", "ab", "a", "b", "c"}); }

TEST(SentencePieceBpe, TheHighestScoreMergesFirst) {
  const Tokenizer tokenizer = LoadPieces(AbcPieces() + Trainer(PieceModel::kBpe) + NoRules());
  EXPECT_EQ(tokenizer.Encode("abc", false), (Ids{5, 3}));
  EXPECT_EQ(tokenizer.Encode("aba", false), (Ids{4, 5}));
}

TEST(SentencePieceBpe, EqualScoresMergeFromTheLeft) {
  const std::string pieces = FirstPieces() + PieceBytes("bc", -1) + PieceBytes("ab", -1) + Pieces({"a", "b", "c"});
  const Tokenizer tokenizer = LoadPieces(pieces + Trainer(PieceModel::kBpe) + NoRules());
  EXPECT_EQ(tokenizer.Encode("abc", false), (Ids{4, 7}));
  std::string many;
  Ids wanted;
  for (int i = 0; i < 200; ++i) {  // longer than what is merged by looking at every pair
    many += "abc";
    wanted.insert(wanted.end(), {4, 7});
  }
  EXPECT_EQ(tokenizer.Encode(many, false), wanted);
}

TEST(SentencePieceBpe, CharactersWithoutAPieceMergeIntoOneThatHasThem) {
  const std::string pieces = FirstPieces() + Pieces({"xy", "a"});
  const Tokenizer unknown = LoadPieces(pieces + Trainer(PieceModel::kBpe) + NoRules());
  EXPECT_EQ(unknown.Encode("axyaxzya", false), (Ids{4, 3, 4, 0, 4})) << "unknown neighbours become one token";
  const Tokenizer bytes = LoadPieces(pieces + BytePieces() + Trainer(PieceModel::kBpe, true) + NoRules());
  EXPECT_EQ(bytes.Encode("xyx", false), (Ids{3, 5 + 'x'}));
}

TEST(SentencePieceBpe, UserDefinedPiecesAreKeptWhole) {
  const std::string pieces = AbcPieces() + PieceBytes("bca", 0, PieceKind::kUserDefined);
  const Tokenizer tokenizer = LoadPieces(pieces + Trainer(PieceModel::kBpe) + NoRules());
  EXPECT_EQ(tokenizer.Encode("abcab", false), (Ids{5, 8, 6}));
  EXPECT_EQ(tokenizer.Decode(Ids{5, 8, 6}), "abcab");
}

// Scores: ab -1, a -2, b -3, c -4, unknown characters -14.
TEST(SentencePieceUnigram, TakesTheLikeliestCut) {
  const std::string pieces = FirstPieces() + Pieces({"ab", "a", "b", "c"});
  const Tokenizer tokenizer = LoadPieces(pieces + Trainer(PieceModel::kUnigram) + NoRules());
  EXPECT_EQ(tokenizer.Encode("abab", false), (Ids{3, 3}));
  EXPECT_EQ(tokenizer.Encode("ba?\u00e9c", false), (Ids{5, 4, 0, 6}));
  EXPECT_EQ(tokenizer.Encode("", false), Ids{});
  const Tokenizer bytes = LoadPieces(pieces + BytePieces() + Trainer(PieceModel::kUnigram, true) + NoRules());
  EXPECT_EQ(bytes.Encode("a?", false), (Ids{4, 7 + '?'}));
}

TEST(SentencePieceUnigram, UserDefinedPiecesWinAndUnusedOnesDoNotCount) {
  const std::string pieces = FirstPieces() + Pieces({"a", "b", "c", "abc"}) +
                             PieceBytes("bc", -90, PieceKind::kUserDefined) + PieceBytes("ab", 5, PieceKind::kUnused);
  const Tokenizer tokenizer = LoadPieces(pieces + Trainer(PieceModel::kUnigram) + NoRules());
  EXPECT_EQ(tokenizer.Encode("abc", false), (Ids{3, 7}));
  EXPECT_EQ(tokenizer.Encode("ab", false), (Ids{3, 4}));
}

TEST(SentencePieceNormalizer, SpacesAreTrimmedJoinedAndMarked) {
  const std::string pieces = FirstPieces() + Pieces({"\u2581", "a", " "}) + Trainer(PieceModel::kBpe);
  EXPECT_EQ(LoadPieces(pieces).Encode("  a  a ", false), (Ids{3, 4, 3, 4}));
  EXPECT_EQ(LoadPieces(pieces).Encode("   ", false), Ids{});
  EXPECT_EQ(LoadPieces(pieces + NoRules()).Encode(" a  ", false), (Ids{3, 4, 3, 3}));
  const std::string unmarked = Rules(WireNumber(4, 0) + WireNumber(5, 0));
  EXPECT_EQ(LoadPieces(pieces + unmarked).Encode("a ", false), (Ids{5, 4, 5}));
  const std::string suffix = WireBytes(2, WireNumber(24, 1));
  EXPECT_EQ(LoadPieces(pieces + suffix).Encode(" a ", false), (Ids{4, 3}));
}

TEST(SentencePieceNormalizer, SpecialTokensInTheTextBeginAnew) {
  const std::string bytes = FirstPieces() + Pieces({"\u2581", "a"}) + Trainer(PieceModel::kBpe);
  EXPECT_EQ(LoadPieces(bytes).Encode("a</s>a", false), (Ids{3, 4, 2, 3, 4}));
  EXPECT_EQ(LoadPieces(bytes, {{"legacy", false}}).Encode("a</s>a", false), (Ids{3, 4, 2, 4}));
  EXPECT_EQ(LoadPieces(bytes, {{"add_prefix_space", false}}).Encode("a</s>a", false), (Ids{4, 2, 4}));
}

/// A charsmap with two rules: "a" becomes "bc", "ab" nothing.
std::string Charsmap() {
  std::vector<uint32_t> units(1024);
  const auto leaf = [&](uint32_t at, uint32_t value) { units[at] = 0x80000000 | value; };
  units[0] = 1 << 10;
  const uint32_t a = 1 ^ 'a';
  units[a] = 'a' | 1 << 8 | (a ^ 512) << 10;
  leaf(512, 0);
  const uint32_t b = 512 ^ 'b';
  units[b] = 'b' | 1 << 8 | (b ^ 768) << 10;
  leaf(768, 2);
  std::string blob;
  for (const uint32_t unit : units) {
    for (int i = 0; i < 4; ++i) blob += static_cast<char>(unit >> (8 * i));
  }
  std::string size;
  for (int i = 0; i < 4; ++i) size += static_cast<char>(blob.size() >> (8 * i));
  return size + blob + std::string("bc\0", 3);
}

TEST(SentencePieceNormalizer, TheLongestRuleOfTheCharsmapApplies) {
  const std::string rules = Rules(WireBytes(2, Charsmap()) + WireNumber(3, 0) + WireNumber(4, 0));
  const Tokenizer tokenizer = LoadPieces(AbcPieces() + Trainer(PieceModel::kBpe) + rules);
  EXPECT_EQ(tokenizer.Encode("ca", false), (Ids{7, 3}));
  EXPECT_EQ(tokenizer.Encode("cabaa", false), (Ids{7, 3, 3}));
}

TEST(SentencePieceNormalizer, DamagedCharsmapsDoNoHarm) {
  const std::string good = Charsmap();
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string bad = good;
    for (int i = 0; i < 20; ++i) bad[4 + random() % (bad.size() - 4)] = static_cast<char>(random());
    try {
      const Tokenizer tokenizer = LoadPieces(AbcPieces() + Trainer(PieceModel::kBpe) + Rules(WireBytes(2, bad)));
      static_cast<void>(tokenizer.Encode("ab \u00e9 cab"));
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("charsmap"), std::string::npos) << error.what();
    }
  }
  EXPECT_NE(ErrorOf(AbcPieces() + Rules(WireBytes(2, std::string(4, '\xff')))).find("does not fit"),
            std::string::npos);
}

TEST(SentencePieceDecoder, SpacesBytesAndUnknownTokens) {
  const std::string pieces = FirstPieces() + Pieces({"\u2581", "\u2581a", "b"}) + BytePieces();
  const Tokenizer tokenizer = LoadPieces(pieces + Trainer(PieceModel::kBpe, true));
  constexpr int32_t kBytes = 6;
  EXPECT_EQ(tokenizer.Decode(Ids{1, 4, 4, 2}), "a a");
  EXPECT_EQ(tokenizer.Decode(Ids{1, 4}, false), "<s> a");
  EXPECT_EQ(tokenizer.Decode(Ids{3, 3, 4}), "a") << "all spaces in front go where extra ones are taken away";
  EXPECT_EQ(tokenizer.Decode(Ids{5, 0, 5}), "b \u2047 b");
  EXPECT_EQ(tokenizer.Decode(Ids{kBytes + 0xC3, kBytes + 0xA9, 4}), "\u00e9 a");
  EXPECT_EQ(tokenizer.Decode(Ids{kBytes + 0xE2, kBytes + 0x96, 5}), "\uFFFD\uFFFDb") << "one for each byte";
  EXPECT_EQ(tokenizer.Decode(Ids{kBytes + 0xC3, 2, kBytes + 0xA9}), "\uFFFD\uFFFD") << "a special token divides";
  EXPECT_EQ(Stream(tokenizer, Ids{4, kBytes + 0xC3, kBytes + 0xA9, 4}),
            (std::vector<std::string>{"a", "", "\u00e9", " a", ""}));
  const Tokenizer kept = LoadPieces(pieces + Trainer(PieceModel::kBpe, true) + Rules(WireNumber(4, 0)));
  EXPECT_EQ(kept.Decode(Ids{3, 3, 4}), "  a") << "only the dummy space goes";
}

TEST(SentencePieceConfig, SpecialTokensComeFromTheFilesBeside) {
  const std::string bytes = FirstPieces() + Pieces({"a"}) + Trainer(PieceModel::kBpe) + NoRules();
  const Tokenizer plain = LoadPieces(bytes);
  EXPECT_EQ(plain.Encode("a"), (Ids{1, 3}));
  EXPECT_EQ(plain.bos_id(), 1);
  EXPECT_EQ(plain.eos_id(), 2);
  const Json config = {{"add_bos_token", false},
                       {"add_eos_token", true},
                       {"eos_token", "<end>"},
                       {"added_tokens_decoder", {{"4", {{"content", "<end>"}, {"special", true}}}}}};
  const Tokenizer other = LoadPieces(bytes, config);
  EXPECT_EQ(other.Encode("a<end>"), (Ids{3, 4, 4}));
  EXPECT_EQ(other.Decode(Ids{3, 4}), "a");
  EXPECT_EQ(other.vocab_size(), 5);
  Json wrong = config;
  wrong["added_tokens_decoder"] = {{"9", {{"content", "<end>"}}}};
  EXPECT_THROW(LoadPieces(bytes, wrong), ConfigError);
}

TEST(SentencePieceFile, TokenizerJsonGoesFirst) {
  const TemporaryFolder folder;
  WriteFile(folder.path() / "tokenizer.model", "broken");
  WriteFile(folder.path() / "tokenizer.json", SmallTokenizer({"a"}).dump());
  EXPECT_EQ(Tokenizer::Load(folder.path()).Encode("a"), Ids{0});
}

TEST(SentencePieceFile, IsRefusedByName) {
  const std::string bpe = Trainer(PieceModel::kBpe);
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no piece is of type UNKNOWN"},
      {"\x0A\x05\x61", "5 bytes are announced where 1 are left"},
      {std::string(20, '\xff'), "more than 10 bytes"},
      {"\x0B", "wire type 3"},
      {WireNumber(1, 7), "field 1: expected bytes"},
      {AbcPieces() + PieceBytes("a", 0), "pieces 5 and 8 are both \"a\""},
      {AbcPieces() + PieceBytes("", 0), "piece 8: has no text"},
      {AbcPieces() + PieceBytes("\xff", 0), "0xFF"},
      {AbcPieces() + PieceBytes("d", std::numeric_limits<float>::quiet_NaN()), "piece 8: expected a finite score"},
      {AbcPieces() + PieceBytes("d", 0, static_cast<PieceKind>(9)), "piece 8: type 9"},
      {AbcPieces() + PieceBytes("d", 0, PieceKind::kUnknown), "piece 8: is of type UNKNOWN"},
      {AbcPieces() + PieceBytes("<0x0A>", 0, PieceKind::kByte), "piece 8: is of type BYTE"},
      {AbcPieces() + Trainer(PieceModel::kBpe, true), "256 bytes, got 0"},
      {AbcPieces() + PieceBytes("d", 0, PieceKind::kUnused) + bpe, "UNUSED"},
      {AbcPieces() + PieceBytes(std::string(5000, 'd'), 0) + bpe, "at most 1024 bytes, got 5000"},
      {AbcPieces() + Trainer(static_cast<PieceModel>(4)), "got CHAR"},
      {AbcPieces() + WireBytes(5, WireBytes(2, "rules")), "denormalizer_spec"},
  };
  for (const auto& [bytes, says] : cases) {
    const std::string message = ErrorOf(bytes);
    EXPECT_NE(message.find("tokenizer.model: "), std::string::npos) << says << ": " << message;
    EXPECT_NE(message.find(says), std::string::npos) << says << ": " << message;
  }
}

TEST(SentencePieceFile, FieldsThatEndEarlyAreRefused) {
  const std::vector<std::string> fields = {AbcPieces(), PieceBytes("d", -9), Trainer(PieceModel::kBpe),
                                           Rules(WireBytes(2, Charsmap()))};
  std::string whole = fields[0];
  for (size_t i = 1; i < fields.size(); ++i) {
    for (size_t size = 1; size < fields[i].size(); size += 1 + size / 16) {
      EXPECT_NE(ErrorOf(whole + fields[i].substr(0, size)), "") << "field " << i << ", " << size << " bytes";
    }
    whole += fields[i];
    EXPECT_EQ(ErrorOf(whole), "");
  }
}

// A million characters of one kind: linear, whatever merges.
TEST(SentencePieceBpe, LongRunsSurvive) {
  const std::string pieces = FirstPieces() + Pieces({"\u2581\u2581", "aa", "aaaa", "a", "\u2581"});
  const Tokenizer tokenizer = LoadPieces(pieces + Trainer(PieceModel::kBpe) + NoRules());
  EXPECT_EQ(tokenizer.Encode(std::string(1000001, 'a'), false).size(), 250001U);
  EXPECT_EQ(tokenizer.Encode(std::string(1000000, ' '), false).size(), 500000U);
}

TEST(SentencePieceFile, ServesBesideATokenizerJsonThatIsNotImplemented) {
  const TemporaryFolder folder;
  const std::string pieces = FirstPieces() + PieceBytes("a", 0) + PieceBytes("b", 0) + Trainer(PieceModel::kUnigram);
  WriteFile(folder.path() / "tokenizer.model", pieces + NoRules());
  Json json = SmallTokenizer({"x"});
  json["model"] = {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", Json::array({Json::array({"a", 0.0})})}};
  WriteFile(folder.path() / "tokenizer.json", json.dump());
  EXPECT_EQ(Tokenizer::Load(folder.path()).Encode("ab", false), (std::vector<int32_t>{3, 4}));
  WriteFile(folder.path() / "tokenizer.json", SmallTokenizer({"x", "y", "b", "a"}).dump());
  EXPECT_EQ(Tokenizer::Load(folder.path()).Encode("ab", false), (std::vector<int32_t>{3, 2}))
      << "implemented: it counts";

  WriteFile(folder.path() / "tokenizer.json", "{");
  EXPECT_THROW(Tokenizer::Load(folder.path()), ConfigError) << "broken, not unknown";
  WriteFile(folder.path() / "tokenizer.json", json.dump());
  WriteFile(folder.path() / "tokenizer.model", "no model");
  try {
    Tokenizer::Load(folder.path());
    ADD_FAILURE() << "neither can be used";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("tokenizer.json"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace runahead::tokenizer
