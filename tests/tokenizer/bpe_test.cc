#include "tokenizer/bpe.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "model_folder.h"
#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

// The definition: merge the best-ranked pair, the leftmost of equals, until there is none.
Ids MergedByDefinition(const Json& model, const std::string& word) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t rank = 0; rank < model["merges"].size(); ++rank) {
    ranks[{model["merges"][rank][0], model["merges"][rank][1]}] = rank;
  }
  std::vector<std::string> symbols;
  for (const char byte : word) symbols.emplace_back(1, byte);
  while (true) {
    size_t best = symbols.size();
    size_t best_rank = model["merges"].size();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find({symbols[i], symbols[i + 1]});
      if (found == ranks.end() || found->second >= best_rank) continue;
      best = i;
      best_rank = found->second;
    }
    if (best == symbols.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& symbol : symbols) ids.push_back(model["vocab"][symbol]);
  return ids;
}

Ids Encoded(const Bpe& bpe, const std::string& word) {
  BpeScratch scratch;
  Ids ids;
  bpe.Encode(word, scratch, ids);
  return ids;
}

// Random merges over few letters, in no sensible order: later symbols may rank before their parts.
Json RandomModel(std::mt19937& random) {
  std::vector<std::string> tokens = {"a", "b", "c", "d"};
  Json vocab = {{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}};
  Json merges = Json::array();
  const size_t wanted = 5 + random() % 60;
  for (size_t i = 0; i < wanted; ++i) {
    const std::string left = tokens[random() % tokens.size()];
    const std::string right = tokens[random() % tokens.size()];
    const std::string merged = left + right;
    if (merged.size() > 12) continue;
    if (!vocab.contains(merged)) {
      vocab[merged] = vocab.size();
      tokens.push_back(merged);
    }
    merges.push_back(Json::array({left, right}));
  }
  std::shuffle(merges.begin(), merges.end(), random);
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
}

TEST(Bpe, MergesAsTheDefinitionSays) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const Json model = RandomModel(random);
    const Bpe bpe(JsonObject(model, "test"));
    for (const size_t length : {0, 1, 2, 5, 24, 25, 40, 63, 65, 200, 500}) {
      std::string word;
      const size_t letters = 1 + random() % 4;
      while (word.size() < length) word += static_cast<char>('a' + random() % letters);
      ASSERT_EQ(Encoded(bpe, word), MergedByDefinition(model, word)) << model.dump() << "\n" << word;
    }
  }
}

TEST(Bpe, ScratchCanBeUsedForManyWords) {
  std::mt19937 random(11);
  const Json model = RandomModel(random);
  const Bpe bpe(JsonObject(model, "test"));
  BpeScratch scratch;
  for (int round = 0; round < 1000; ++round) {
    std::string word;
    const size_t length = random() % 90;
    while (word.size() < length) word += static_cast<char>('a' + random() % 4);
    Ids ids;
    bpe.Encode(word, scratch, ids);
    ASSERT_EQ(ids, MergedByDefinition(model, word)) << word;
  }
}

// A loop that is quadratic in the word would need hours here.
TEST(Bpe, AMillionCharactersInOneWord) {
  const Json model = SmallTokenizer({"a", "b", "a|a", "aa|aa", "b|a", "a|b", "aaaa|aaaa"})["model"];
  const Bpe bpe(JsonObject(model, "test"));
  EXPECT_EQ(Encoded(bpe, std::string(1 << 20, 'a')), Ids(1 << 17, 6));
  std::mt19937 random(3);
  std::string word;
  while (word.size() < (1 << 20)) word += random() % 4 == 0 ? 'b' : 'a';
  EXPECT_GT(Encoded(bpe, word).size(), word.size() / 8);
}

TEST(Bpe, LongWordsAreCutWhereNothingMerges) {
  std::string text;
  Ids wanted;
  for (int i = 0; i < 50; ++i) {
    text += "the cat";
    wanted.insert(wanted.end(), {8, 3, 10});
  }
  const Json model = SmallTokenizer({"t", "h", "e", " ", "c", "a", "c|a", "t|h", "th|e", "x", "ca|t"})["model"];
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), text), wanted);
}

Json Fallback(bool all_bytes) {
  std::vector<std::string> tokens = {"<unk>", "a", "b", "a|b"};
  for (int byte = 0; byte < 256; ++byte) {
    if (all_bytes || byte != 0x99) tokens.push_back(fmt::format("<0x{:02X}>", byte));
  }
  Json model = SmallTokenizer(tokens)["model"];
  model["byte_fallback"] = true;
  model["unk_token"] = "<unk>";
  model["fuse_unk"] = true;
  return model;
}

TEST(Bpe, UnknownCharactersFallBackToBytes) {
  const Json model = Fallback(true);
  const Bpe bpe(JsonObject(model, "test"));
  EXPECT_EQ(Encoded(bpe, "abéa"), (Ids{3, 4 + 0xC3, 4 + 0xA9, 1}));
  std::string text;
  Ids wanted;
  for (int i = 0; i < 30; ++i) {
    text += "ab\n";
    wanted.insert(wanted.end(), {3, 4 + '\n'});
  }
  EXPECT_EQ(Encoded(bpe, text), wanted);
}

TEST(Bpe, ACharacterWithAMissingByteIsUnknown) {
  const Json model = Fallback(false);
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "a🙂🙂b"), (Ids{1, 0, 2}));
}

TEST(Bpe, UnknownTokens) {
  Json model = SmallTokenizer({"a", "<unk>", "b", "a|b"})["model"];
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "axb"), Ids{3}) << "without unk_token it vanishes";
  model["unk_token"] = "<unk>";
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "axxb"), (Ids{0, 1, 1, 2}));
  model["fuse_unk"] = true;
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "axxb"), (Ids{0, 1, 2}));
  const std::string many(100, 'x');
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "a" + many + "b"), (Ids{0, 1, 2}));
  model["unk_token"] = "<none>";
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "ab"), Ids{3});
  EXPECT_THROW(Encoded(Bpe(JsonObject(model, "test")), "x"), ConfigError);
}

TEST(Bpe, IgnoreMergesLooksWholePiecesUp) {
  Json model = SmallTokenizer({"a", "b", "ba", "a|b", std::string(70, 'a')})["model"];
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "ba"), (Ids{1, 0}));
  model["ignore_merges"] = true;
  const Bpe bpe(JsonObject(model, "test"));
  EXPECT_EQ(Encoded(bpe, "ba"), Ids{2});
  EXPECT_EQ(Encoded(bpe, "aba"), (Ids{3, 0})) << "no whole piece";
  EXPECT_EQ(Encoded(bpe, std::string(70, 'a')), Ids{4});
}

TEST(Bpe, MergesAsStringsOrPairs) {
  Json model = SmallTokenizer({"a", "b", "a|b"})["model"];
  model["merges"] = Json::array({"a b"});
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "ab"), Ids{2});
}

TEST(Bpe, HostileModelsAreRefused) {
  const Json good = SmallTokenizer({"a", "b", "a|b"})["model"];
  const auto refused = [&](const char* pointer, const Json& value) {
    Json bad = good;
    bad[Json::json_pointer(pointer)] = value;
    EXPECT_THROW(Bpe(JsonObject(bad, "test")), ConfigError) << bad.dump();
  };
  refused("/vocab/a", -1);
  refused("/vocab/a", 1);
  refused("/vocab/a", int64_t{1} << 40);
  refused("/vocab/a", 1 << 22);
  refused("/vocab/a", 18446744073709551615U);
  refused("/vocab/a", 0.5);
  refused("/vocab/a", "0");
  refused("/vocab", Json::array());
  refused("/vocab", nullptr);
  refused("/merges", nullptr);
  refused("/merges", "a b");
  refused("/merges", {"a"});
  refused("/merges", {"a b c"});
  refused("/merges", {"b a"});
  refused("/merges", {"a z"});
  refused("/merges", {1});
  refused("/merges", {{"a", 1}});
  refused("/merges", {{"a", "b", "c"}});
  refused("/dropout", 0.1);
  refused("/continuing_subword_prefix", "##");
  refused("/end_of_word_suffix", "</w>");
  refused("/byte_fallback", "yes");
  refused("/unk_token", 3);
}

TEST(Bpe, EmptyTokensAndRepeatedMergesAreHarmless) {
  Json model = SmallTokenizer({"a", "", "b", "a|b"})["model"];
  model["merges"] = Json::parse(R"([["", "a"], ["", ""], ["a", "b"], ["a", "b"], ["ab", ""]])");
  EXPECT_EQ(Encoded(Bpe(JsonObject(model, "test")), "abab"), (Ids{3, 3}));
}

}  // namespace
}  // namespace runahead::tokenizer
