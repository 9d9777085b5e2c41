// The program under test and a tiny model for it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "model/make_model.h"
#include "tests/cli/process.h"

namespace runahead {

/// The program lies beside the tests.
inline std::string ProgramPath() {
  static const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  return here / "runahead";
}

inline Outcome Runahead(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  return RunProgram(ProgramPath(), arguments, options);
}

/// A tiny model with random weights, made once for a suite. Every byte is a token of it.
class CliTest : public testing::Test {
 protected:
  static constexpr int64_t kContext = 96;

  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    MakeModel("tiny-llama", Model(), 1);
    Json config = LoadJson(Model() + "/config.json");
    config["max_position_embeddings"] = kContext;
    WriteFile(Model() + "/config.json", config.dump());
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string Model() { return *folder_ / "model"; }
  static std::string InFolder(const std::string& name) { return *folder_ / name; }

  /// A copy of the model named `name`, to be changed.
  static std::string CopyOfModel(const std::string& name) {
    std::string copy = InFolder(name);
    std::filesystem::copy(Model(), copy, std::filesystem::copy_options::recursive);
    return copy;
  }

  /// `runahead generate --model ... --json` with further arguments; fails the test when it does not end well.
  static Json GenerateJson(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"generate", "--model", Model(), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    return outcome.exit_code == 0 ? Json::parse(outcome.out) : Json();
  }

 private:
  static inline std::unique_ptr<TemporaryFolder> folder_;
};

}  // namespace runahead
