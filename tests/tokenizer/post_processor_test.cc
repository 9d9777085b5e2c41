#include "tokenizer/post_processor.h"

#include <gtest/gtest.h>

#include "model_folder.h"
#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

Json BosEos() {
  const auto special = [](const char* name) { return Json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}}; };
  return {{"type", "TemplateProcessing"},
          {"single", {special("<s>"), {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, special("</s>")}},
          {"pair", Json::array()},
          {"special_tokens",
           {{"<s>", {{"id", "<s>"}, {"ids", {1, 2}}, {"tokens", {"b", "c"}}}},
            {"</s>", {{"id", "</s>"}, {"ids", {3}}, {"tokens", {"d"}}}}}}};
}

Tokenizer With(const Json& post_processor) {
  Json file = SmallTokenizer({"a", "b", "c", "d"});
  file["post_processor"] = post_processor;
  return LoadSmall(file);
}

TEST(PostProcessor, TemplatesStandAroundTheText) {
  EXPECT_EQ(With(BosEos()).Encode("aa"), (Ids{1, 2, 0, 0, 3}));
  EXPECT_EQ(With(BosEos()).Encode("aa", false), (Ids{0, 0}));
  EXPECT_EQ(With(BosEos()).Encode(""), (Ids{1, 2, 3}));
  EXPECT_EQ(With(BosEos()).bos_id(), 1);
}

TEST(PostProcessor, OtherKinds) {
  EXPECT_EQ(With(nullptr).Encode("a"), Ids{0});
  EXPECT_EQ(With({{"type", "ByteLevel"}}).Encode("a"), Ids{0});
  EXPECT_EQ(With({{"type", "BertProcessing"}, {"cls", {"b", 1}}, {"sep", {"c", 2}}}).Encode("a"), (Ids{1, 0, 2}));
  EXPECT_EQ(With({{"type", "RobertaProcessing"}, {"cls", {"b", 1}}, {"sep", {"c", 2}}}).Encode("a"), (Ids{1, 0, 2}));
  const Json sequence = {{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, BosEos()}}};
  EXPECT_EQ(With(sequence).Encode("a"), (Ids{1, 2, 0, 3}));
}

TEST(PostProcessor, HostileTemplatesAreRefused) {
  const auto refused = [](const char* pointer, const Json& value) {
    Json bad = BosEos();
    bad[Json::json_pointer(pointer)] = value;
    EXPECT_THROW(With(bad), ConfigError) << bad.dump();
  };
  refused("/type", "Pairing");
  refused("/single", "A");
  refused("/single/1/Sequence/id", "B");
  refused("/single/0/SpecialToken/id", "<none>");
  refused("/special_tokens/<s>/ids", {4});
  refused("/special_tokens/<s>/ids", {-1});
  refused("/special_tokens/<s>/ids", 1);
  Json doubling = BosEos();
  doubling["single"] = {doubling["single"][1], doubling["single"][1]};
  EXPECT_THROW(With({{"type", "Sequence"}, {"processors", Json::array_t(40, doubling)}}), ConfigError);
}

}  // namespace
}  // namespace runahead::tokenizer
