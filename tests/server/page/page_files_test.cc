// The page's files as the program has them.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/input_file.h"
#include "base/source_dir.h"
#include "server/page/page.h"

namespace runahead::server {
namespace {

using Matches = std::regex_iterator<std::string_view::const_iterator>;

TEST(PageFilesTest, AreThoseOfTheSources) {
  for (const char* name : {"index.html", "page.css", "main.js", "icon.svg"}) {
    const auto file = FindPage(std::string("/page/") + name);
    ASSERT_TRUE(file) << name;
    EXPECT_EQ(file->text, ReadInput(std::string(SourceDir()) + "/src/server/page/" + name)) << name;
  }
  EXPECT_EQ(FindPage("/")->text, FindPage("/page/index.html")->text);
  EXPECT_EQ(FindPage("/")->content_type, "text/html; charset=utf-8");
  EXPECT_EQ(FindPage("/page/main.js")->content_type, "text/javascript; charset=utf-8");
  EXPECT_EQ(FindPage("/page/page.css")->content_type, "text/css; charset=utf-8");
  EXPECT_EQ(FindPage("/page/icon.svg")->content_type, "image/svg+xml");
}

TEST(PageFilesTest, NameNoOtherFileAndNoOtherHost) {
  std::vector<std::string> left = {"/"};
  std::set<std::string> seen(left.begin(), left.end());
  const std::regex named(R"(["'(](/page/[^"')]+)|(https?://[^"' ]+))");
  while (!left.empty()) {
    const auto file = FindPage(left.back());
    ASSERT_TRUE(file) << left.back();
    left.pop_back();
    for (Matches match(file->text.begin(), file->text.end(), named), end; match != end; ++match) {
      const std::string host = (*match)[2].str();
      EXPECT_TRUE(host.empty() || host == "http://www.w3.org/2000/svg") << host;
      const std::string path = (*match)[1].str();
      if (!path.empty() && seen.insert(path).second) left.push_back(path);
    }
  }
  EXPECT_GT(seen.size(), 15U);
}

TEST(PageFilesTest, AreFoundByTheirNamesAlone) {
  for (const char* path :
       {"", "/page", "/page/", "/page/../page.h", "/page/page.cc", "/page//main.js", "/main.js", "/page/MAIN.JS"}) {
    EXPECT_FALSE(FindPage(path)) << path;
  }
}

TEST(PageFilesTest, HaveNothingInline) {
  const std::string html(FindPage("/")->text);
  for (const char* inlined : {R"(\son\w+=)", R"(\sstyle=)", R"(<script>)", R"(<style)"}) {
    EXPECT_FALSE(std::regex_search(html, std::regex(inlined))) << inlined;
  }
  EXPECT_EQ(kPagePolicy.find("unsafe"), std::string_view::npos);
}

TEST(PageFilesTest, HoldADocumentToAskAbout) {
  const auto sample = nlohmann::json::parse(FindPage("/page/sample.json")->text);
  const auto text = sample.at("text").get<std::string>();
  EXPECT_GT(text.size(), 20'000U);
  EXPECT_LE(text.size(), 24'000U);
  ASSERT_GE(sample.at("questions").size(), 5U);
  EXPECT_EQ(sample.at("questions")[0], "What was the last port of the Amber Wren?");
}

}  // namespace
}  // namespace runahead::server
