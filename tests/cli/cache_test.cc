// --cache-dir and `runahead cache`: what one run kept, the next one finds.
#include <filesystem>

#include "tests/cli/fixture.h"

namespace runahead {
namespace {

class CacheTest : public CliTest {
 protected:
  static void SetUpTestSuite() {
    CliTest::SetUpTestSuite();
    Json config = LoadJson(CopyOfModel("long") + "/config.json");
    config["max_position_embeddings"] = 1024;
    WriteFile(LongModel() + "/config.json", config.dump());
  }
  static std::string LongModel() { return InFolder("long"); }

  static std::string Ids(int count) {
    std::string ids = "1";
    for (int i = 1; i < count; ++i) ids += "," + std::to_string(i * 7 % 251);
    return ids;
  }

  /// What `generate` with the cache in `folder` and these arguments prints.
  static Json Generate(const std::string& folder, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"generate", "--model", LongModel(), "--json",      "--cache-dir",
                                          folder,     "-n",      "4",         "--ignore-eos"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    return outcome.exit_code == 0 ? Json::parse(outcome.out) : Json();
  }
  static Json Cache(const std::string& action, const std::string& folder, int exit_code = 0) {
    const Outcome outcome = Runahead({"cache", action, "--cache-dir", folder, "--json"});
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    return Json::parse(outcome.out);
  }
};

TEST_F(CacheTest, ALaterRunOfOtherRanksFindsTheRows) {
  const std::string folder = InFolder("found/deeper");
  const Json cold = Generate(folder, {"--prompt-ids", Ids(400)});
  EXPECT_EQ(cold.at("cached_tokens"), 0);
  for (const char* devices : {"cpu", "cpu:2"}) {
    const Json warm = Generate(folder, {"--prompt-ids", Ids(400), "--devices", devices});
    EXPECT_EQ(warm.at("ids"), cold.at("ids"));
    EXPECT_EQ(warm.at("cached_tokens"), 384);
  }
  Json plain = GenerateJson({"--prompt-ids", "1,2,3", "-n", "1"});
  EXPECT_EQ(plain.at("cached_tokens"), 0);

  WriteFile(InFolder("requests"), R"({"id": "a", "prompt": [)" + Ids(400) + R"(], "max_tokens": 4})" + "\n");
  const Outcome batch = Runahead({"batch", InFolder("requests"), "--model", LongModel(), "--cache-dir", folder});
  EXPECT_EQ(batch.exit_code, 0) << batch.err;
  EXPECT_EQ(Json::parse(batch.out).at("cached_tokens"), 384) << batch.out;
}

TEST_F(CacheTest, ListedVerifiedAndDropped) {
  const std::string folder = InFolder("listed");
  Generate(folder, {"--prompt-ids", Ids(300)});
  const Json list = Cache("list", folder);
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0].at("pages"), 2);
  EXPECT_EQ(list[0].at("about").get<std::string>().substr(0, 5), "long,");
  EXPECT_EQ(Cache("verify", folder), (Json{{"pages", 2}, {"damaged", Json::array()}}));
  const Outcome table = Runahead({"cache", "list", "--cache-dir", folder});
  EXPECT_NE(table.out.find(list[0].at("id").get<std::string>().substr(0, 12)), std::string::npos) << table.out;

  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".page") continue;
    std::string bytes = ReadFile(entry.path());
    bytes[bytes.size() / 2] ^= 1;
    WriteFile(entry.path(), bytes);
    break;
  }
  const Json damaged = Cache("verify", folder, 1);
  ASSERT_EQ(damaged.at("damaged").size(), 1U);
  EXPECT_EQ(damaged.at("damaged")[0].at("reason"), "its rows are damaged");
  EXPECT_EQ(Cache("verify", folder).at("pages"), 1);
  EXPECT_EQ(Runahead({"cache", "drop", "--cache-dir", folder, "--id", "0000000000"}).exit_code, 2);
  EXPECT_EQ(Cache("drop", folder), (Json{{"models", 1}}));
  EXPECT_EQ(Cache("list", folder), Json::array());
}

TEST_F(CacheTest, WrongUseIsOneLine) {
  WriteFile(InFolder("file"), "");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"generate", "--model", LongModel(), "--prompt-ids", "1", "--cache-size", "1GB"}, "--cache-dir"},
      {{"generate", "--model", LongModel(), "--prompt-ids", "1", "--cache-dir", "x", "--cache-size", "some"},
       "'some'"},
      {{"generate", "--model", LongModel(), "--prompt-ids", "1", "--cache-dir", "x", "--cache-size", "9kB"}, "9000"},
      {{"generate", "--model", LongModel(), "--prompt-ids", "1", "--cache-dir", ""}, "--cache-dir"},
      {{"generate", "--model", LongModel(), "--prompt-ids", "1", "--cache-dir", InFolder("file")}, InFolder("file")},
      {{"generate", "--model", LongModel(), "--prompt-ids", "1", "--cache-dir", "x", "--json", "--logits"},
       "--logits"},
      {{"cache", "empty", "--cache-dir", InFolder("file")}, "'empty'"},
      {{"cache", "list", "--cache-dir", InFolder("file")}, InFolder("file")},
      {{"cache", "list"}, "--cache-dir"},
      {{"cache", "drop", "--cache-dir", InFolder("nowhere")}, InFolder("nowhere")}};
  for (const auto& [arguments, named] : cases) {
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_NE(outcome.err.find(named), std::string::npos) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

}  // namespace
}  // namespace runahead
