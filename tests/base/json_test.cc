#include "base/json.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// The message of the ConfigError that `function` throws.
template <typename Function>
std::string Refusal(Function&& function) {
  try {
    function();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ParseJson, NamesTheOriginOfBrokenText) {
  const std::string message = Refusal([] { ParseJson("{\"a\": ", "config.json"); });
  EXPECT_TRUE(message.starts_with("config.json: not valid JSON")) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(ParseJson, RefusesDuplicateKeysAndDeepNesting) {
  EXPECT_EQ(Refusal([] { ParseJson(R"({"a": 1, "a": 2})", "f"); }), "f: key \"a\" appears twice in one object");
  EXPECT_EQ(ParseJson(R"([{"a": 1}, {"a": 2}])", "f").size(), 2u);
  const std::string deep = std::string(70, '[') + std::string(70, ']');
  EXPECT_EQ(Refusal([&] { ParseJson(deep, "f"); }), "f: JSON is nested deeper than 64 levels");
  EXPECT_EQ(Refusal([&] { ParseJson(std::string(1 << 20, '['), "f"); }), "f: JSON is nested deeper than 64 levels");
}

TEST(ParseJson, FindsDuplicatesAmongManyKeysAtAnyDepth) {
  std::string members;
  for (int i = 0; i < 1000; ++i) members += fmt::format("\"prefix shared by all {}\": [{}], ", i * 7919 % 1000, i);
  EXPECT_EQ(ParseJson("{" + members + "\"\": 0}", "f").size(), 1001u);
  EXPECT_EQ(Refusal([&] { ParseJson("[{\"a\": {" + members + "\"prefix shared by all 17\": 0}}]", "f"); }),
            "f: key \"prefix shared by all 17\" appears twice in one object");
}

// Whatever nlohmann's own parser makes of a text is what comes out, in the same order and with the same types.
TEST(ParseJson, BuildsWhatTheTextSays) {
  const std::string text =
      R"({"b": [1, -2, 3.5, true, false, null, "s\u00e9", [], {}], "a": {"z": {"y": 1}, "\u0000": 2, "": [[]]}, "c": 18446744073709551615})";
  EXPECT_EQ(ParseJson(text, "f"), Json::parse(text));
  EXPECT_EQ(ParseJson(text, "f").dump(), Json::parse(text).dump());
  EXPECT_EQ(ParseJson("7", "f"), Json(7));
  EXPECT_NE(Refusal([] { ParseJson("1e999", "f"); }), "nothing was thrown");
  EXPECT_NE(Refusal([] { ParseJson("{} {}", "f"); }), "nothing was thrown");
}

TEST(JsonObject, NamesFieldAndValueOfWhatItRefuses) {
  const Json json = ParseJson(R"({"n": 7, "big": 18446744073709551615, "x": 1.5, "s": "text", "none": null})", "f");
  const JsonObject object(json, "f");
  EXPECT_EQ(object.Int("n", 1, 7), 7);
  EXPECT_EQ(object.Int("none", 1, 9, 3), 3);
  EXPECT_EQ(Refusal([&] { (void)object.Int("n", 8, 9); }), "f: n: expected an integer from 8 to 9, got 7");
  EXPECT_EQ(Refusal([&] { (void)object.Int("big", 0, INT64_MAX); }),
            "f: big: expected an integer from 0 to 9223372036854775807, got 18446744073709551615");
  EXPECT_EQ(Refusal([&] { (void)object.Int("x", 0, 9); }), "f: x: expected an integer from 0 to 9, got 1.5");
  EXPECT_EQ(Refusal([&] { (void)object.Number("s"); }), "f: s: expected a number, got \"text\"");
  EXPECT_EQ(Refusal([&] { (void)object.String("absent"); }), "f: absent is missing, expected a string");
  EXPECT_EQ(Refusal([&] { JsonObject(json.at("n"), "f: n"); }), "f: n: expected a JSON object, got 7");
}

TEST(JsonObject, TakesWholeNumbersHoweverTheyAreWritten) {
  const Json json = Json::parse(R"({"a": 4096.0, "b": 4.096e3, "c": -0.0, "d": 1e300, "e": 0.5, "f": "4096",
                                    "g": 9007199254740992.0, "h": 9007199254740994.0})");
  const JsonObject object(json, "f");
  EXPECT_EQ(object.Int("a", 0, 4096), 4096);
  EXPECT_EQ(object.Int("b", 0, 4096), 4096);
  EXPECT_EQ(object.Int("c", 0, 4096), 0);
  EXPECT_EQ(object.Int("g", 0, INT64_MAX), int64_t{1} << 53);
  for (const char* key : {"d", "e", "f", "h"})
    EXPECT_NE(Refusal([&] { (void)object.Int(key, 0, INT64_MAX); }), "nothing was thrown");
}

TEST(Files, NameThePathAndTheReason) {
  EXPECT_THROW(ReadFile("/nowhere/file"), IoError);
  EXPECT_THROW(ReadFile(std::filesystem::temp_directory_path()), IoError);
  EXPECT_THROW(MappedFile{std::filesystem::temp_directory_path()}, IoError);
  EXPECT_THROW(WriteFile("/nowhere/file", "x"), IoError);
  try {
    ReadFile("/nowhere/file");
  } catch (const IoError& error) {
    EXPECT_STREQ(error.what(), "/nowhere/file: cannot open: No such file or directory");
  }
}

TEST(Files, NumbersThatOnlyPythonWritesAreStrings) {
  const auto path = std::filesystem::temp_directory_path() / "runahead_json_test";
  WriteFile(path, R"({"unused": [NaN, -Infinity, Infinity], "text": "a \"NaN\" b", "n": NaN})");
  const Json json = LoadJson(path);
  EXPECT_EQ(json["unused"], Json({"NaN", "-Infinity", "Infinity"}));
  EXPECT_EQ(json["text"], "a \"NaN\" b");
  EXPECT_THROW((void)JsonObject(json, "f").Number("n"), ConfigError);
  WriteFile(path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  EXPECT_THROW((void)LoadJson(path), IoError) << "a Git-LFS pointer";
  std::filesystem::remove(path);
}

TEST(Files, ComeBackAsWritten) {
  const auto path = std::filesystem::temp_directory_path() / "runahead_file_test";
  const std::string content("a\0b\n", 4);
  WriteFile(path, content);
  EXPECT_EQ(ReadFile(path), content);
  MappedFile first(path);
  const MappedFile moved(std::move(first));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(moved.bytes().data()), moved.bytes().size()), content);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace runahead
