#include "model/byte_tokenizer.h"

#include <fmt/format.h>

#include <string>

#include "base/check.h"
#include "model/presets.h"

namespace runahead {
namespace {

constexpr const char* kBosText = "<s>";
constexpr const char* kEosText = "</s>";

/// UTF-8 of a code point below 0x800.
std::string Utf8(int code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xc0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3f))};
}

Json SpecialToken(int32_t id, const char* text) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

Json Vocabulary(int64_t vocab) {
  Json ids = Json::object();
  // Byte-level BPE writes bytes that are no visible Latin-1 character as the code points from 256 on (GPT-2's
  // mapping).
  int hidden_bytes = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    ids[Utf8(visible ? byte : 256 + hidden_bytes++)] = byte;
  }
  ids[kBosText] = kMadeBos;
  ids[kEosText] = kMadeEos;
  for (int64_t id = kMadeEos + 1; id < vocab; ++id) ids[fmt::format("<|{}|>", id)] = id;
  return ids;
}

}  // namespace

Json ByteTokenizer(int64_t vocab) {
  CHECK_GT(vocab, int64_t{kMadeEos});
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json bos = {{"SpecialToken", {{"id", kBosText}, {"type_id", 0}}}};
  const Json pair = {{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", Json::array({SpecialToken(kMadeBos, kBosText), SpecialToken(kMadeEos, kEosText)})},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", Json::array({bos, text})},
        {"pair", Json::array({bos, text, pair})},
        {"special_tokens",
         {{kBosText, {{"id", kBosText}, {"ids", Json::array({kMadeBos})}, {"tokens", Json::array({kBosText})}}}}}}},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", Vocabulary(vocab)},
        {"merges", Json::array()}}},
  };
}

}  // namespace runahead
