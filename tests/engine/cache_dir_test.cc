// Rows that outlive their engine: another one, of other ranks, finds them, and its answers have the same bits.
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <random>
#include <stdexcept>

#include "base/file.h"
#include "runahead/engine.h"
#include "runahead/request.h"
#include "tests/cli/process.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

/// What a request got, with all its bits.
struct AnswerIds {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  int64_t cached = 0;

  /// Whether the answers are the same.
  friend bool operator==(const AnswerIds& a, const AnswerIds& b) {
    return a.ids == b.ids && a.logprobs == b.logprobs;
  }
};

AnswerIds Await(RequestHandle handle) {
  AnswerIds answered;
  while (true) {
    const std::optional<RequestEvent> event = handle.Next(std::chrono::minutes(1));
    if (!event) throw std::runtime_error("a request gave nothing for a minute");
    if (event->kind == RequestEvent::Kind::kToken) {
      answered.ids.push_back(event->token.id);
      answered.logprobs.push_back(event->token.logprob);
      for (const TokenLogprob& likely : event->likely) answered.logprobs.push_back(likely.logprob);
    }
    if (event->kind != RequestEvent::Kind::kEnd) continue;
    if (event->finish == FinishReason::kError) throw std::runtime_error(event->error);
    answered.cached = event->stats.cached_tokens;
    return answered;
  }
}

Request Prompt(size_t tokens, unsigned seed, int answer = 6) {
  Request request;
  std::mt19937 random(seed);
  while (request.prompt.size() < tokens) request.prompt.push_back(static_cast<int32_t>(random() % 300));
  request.generation.max_new_tokens = answer;
  request.logprobs = 3;
  return request;
}

class CacheDirTest : public testing::Test {
 protected:
  [[nodiscard]] Engine Load(const std::string& devices, EngineOptions options = {},
                            const std::string& preset = "tiny-llama") const {
    options.devices = devices;
    options.threads_per_rank = 1;
    options.kv_memory = size_t{16} << 20;
    options.cache_dir = Folder();
    return Engine::Load(TinyModelFolder(preset), options);
  }
  [[nodiscard]] std::string Folder() const { return folder_ / "cache"; }
  /// What an engine that has kept nothing answers.
  static AnswerIds Cold(const Request& request, const std::string& preset = "tiny-llama") {
    EngineOptions options;
    options.threads_per_rank = 1;
    options.kv_memory = size_t{16} << 20;
    return Await(Engine::Load(TinyModelFolder(preset), options).Submit(request));
  }
  [[nodiscard]] std::vector<std::filesystem::path> PageFiles() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(Folder())) {
      if (entry.path().extension() == ".page") files.push_back(entry.path());
    }
    return files;
  }

  TemporaryFolder folder_;
};

TEST_F(CacheDirTest, AnEngineOfOtherRanksFindsTheRows) {
  const Request request = Prompt(600, 1);
  const AnswerIds cold = Cold(request);
  Request together = request;
  together.prefill.ranks = 2;
  EXPECT_EQ(Await(Load("cpu:2").Submit(together)), cold);
  EXPECT_EQ(PageFiles().size(), 4U);
  for (const char* devices : {"cpu", "cpu:3"}) {
    const Engine engine = Load(devices);
    const AnswerIds warm = Await(engine.Submit(request));
    EXPECT_EQ(warm, cold) << devices;
    EXPECT_EQ(warm.cached, 512) << devices;
    Request longer = request;
    longer.prompt = Prompt(1500, 1).prompt;
    const AnswerIds all = Cold(longer);
    longer.prefill.ranks = engine.ranks();  // behind what was found
    const AnswerIds grown = Await(engine.Submit(longer));
    EXPECT_EQ(grown, all) << devices;
    EXPECT_GE(grown.cached, 512) << devices;
  }
}

TEST_F(CacheDirTest, AConversationGoesOnWhereItEnded) {
  for (const char* preset : {"tiny-llama", "tiny-phi3", "tiny-mistral"}) {  // Phi-3's angles change within the answer
    Request request = Prompt(200, 2, 100);
    const AnswerIds first = Await(Load("cpu", {}, preset).Submit(request));
    request.prompt.insert(request.prompt.end(), first.ids.begin(), first.ids.end());
    for (int32_t id = 0; id < 20; ++id) request.prompt.push_back(id);
    const AnswerIds second = Await(Load("cpu", {}, preset).Submit(request));
    EXPECT_EQ(second, Cold(request, preset)) << preset;
    EXPECT_EQ(second.cached, 256) << preset;
    request.prompt.insert(request.prompt.end(), second.ids.begin(), second.ids.end());
    const AnswerIds third = Await(Load("cpu", {}, preset).Submit(request));
    EXPECT_EQ(third, Cold(request, preset)) << preset;
    EXPECT_EQ(third.cached, 384) << preset;
  }
}

// Behind a window ranks hand over what later queries see, and none has all rows.
TEST_F(CacheDirTest, PagesThatLackRowsAreNotKept) {
  for (const size_t tokens : {500U, 512U}) {
    Request request = Prompt(tokens, 10);
    const AnswerIds cold = Cold(request, "tiny-mistral");
    request.prefill.ranks = 2;
    const Engine engine = Load("cpu:2", {}, "tiny-mistral");
    EXPECT_EQ(Await(engine.Submit(request)), cold);
    EXPECT_EQ(engine.FlushCache(), "");
    EXPECT_EQ(PageFiles().size(), 0U);
    Request longer = Prompt(700, 10);
    EXPECT_EQ(Await(engine.Submit(longer)), Cold(longer, "tiny-mistral"));
  }
  EXPECT_EQ(PageFiles().size(), 0U);
  for (const size_t tokens : {512U, 300U, 800U}) {
    const Request again = Prompt(tokens, 10);
    EXPECT_EQ(Await(Load("cpu", {}, "tiny-mistral").Submit(again)), Cold(again, "tiny-mistral")) << tokens;
  }
  EXPECT_EQ(PageFiles().size(), 6U);
}

TEST_F(CacheDirTest, DamagedPagesAreComputedAndWrittenAgain) {
  const Request request = Prompt(700, 3);
  const AnswerIds cold = Cold(request);
  EXPECT_EQ(Await(Load("cpu").Submit(request)), cold);
  std::mt19937 random(4);
  for (int damage = 0; damage < 8; ++damage) {
    const std::vector<std::filesystem::path> files = PageFiles();
    ASSERT_EQ(files.size(), 5U);
    const std::filesystem::path& file = files[random() % files.size()];
    std::string bytes = ReadFile(file);
    if (damage % 2 == 0) bytes.resize(random() % bytes.size());
    if (damage % 2 == 1) bytes[random() % bytes.size()] ^= 16;
    WriteFile(file, bytes);
    const AnswerIds warm = Await(Load("cpu:2").Submit(request));
    EXPECT_EQ(warm, cold);
    EXPECT_LT(warm.cached, 640);
    const AnswerIds again = Await(Load("cpu").Submit(request));
    EXPECT_EQ(again, cold);
    EXPECT_EQ(again.cached, 640);
  }
}

TEST_F(CacheDirTest, OtherModelsAndNumbersFindNothing) {
  const Request request = Prompt(300, 5, 1);
  EngineOptions options;
  options.dtype = "f32";
  EXPECT_EQ(Await(Load("cpu", options).Submit(request)).cached, 0);
  EXPECT_EQ(Await(Load("cpu", options, "tiny-llama-mha").Submit(request)).cached, 0);
  EngineOptions other = options;
  other.dtype = "f16";
  EXPECT_EQ(Await(Load("cpu", other).Submit(request)).cached, 0);
  other = options;
  other.weights = "int8";
  EXPECT_EQ(Await(Load("cpu", other).Submit(request)).cached, 0);
  EXPECT_EQ(Await(Load("cpu", options).Submit(request)).cached, 256);
  Request alone = request;
  alone.reuse_prefix = false;
  EXPECT_EQ(Await(Load("cpu", options).Submit(alone)).cached, 0);
}

TEST_F(CacheDirTest, TwoEnginesShareAFolderAtTheSameTime) {
  const Engine one = Load("cpu");
  const Engine other = Load("cpu:2");
  const Request request = Prompt(400, 6);
  const AnswerIds cold = Cold(request);
  RequestHandle here = one.Submit(request);
  RequestHandle there = other.Submit(request);
  EXPECT_EQ(Await(std::move(here)), cold);
  EXPECT_EQ(Await(std::move(there)), cold);
  const Request next = Prompt(500, 7);
  EXPECT_EQ(Await(one.Submit(next)), Cold(next));
  EXPECT_EQ(one.FlushCache(), "");
  const AnswerIds found = Await(Load("cpu").Submit(next));  // which has not seen what its ranks compute faster
  EXPECT_EQ(found, Cold(next));
  EXPECT_EQ(found.cached, 384);
}

TEST_F(CacheDirTest, ManyRequestsForOneDocumentAreLoadedOnce) {
  const Request request = Prompt(900, 8);
  EXPECT_EQ(Await(Load("cpu").Submit(request)), Cold(request));
  const Engine engine = Load("cpu:2");
  std::vector<RequestHandle> handles;
  for (int i = 0; i < 6; ++i) handles.push_back(engine.Submit(request));
  handles[1].Cancel();
  handles.erase(handles.begin() + 1);
  for (RequestHandle& handle : handles) {
    const AnswerIds warm = Await(std::move(handle));
    EXPECT_EQ(warm, Cold(request));
    EXPECT_GE(warm.cached, 896);
  }
}

TEST_F(CacheDirTest, WhatCannotBeKeptIsSaidAndHarmsNoAnswer) {
  const Request request = Prompt(300, 9);
  const Engine engine = Load("cpu");
  for (const auto& model : std::filesystem::directory_iterator(Folder() + "/kv-pages-1")) {
    std::filesystem::remove_all(model.path());
    WriteFile(model.path(), "no folder");
  }
  EXPECT_EQ(Await(engine.Submit(request)), Cold(request));
  EXPECT_NE(engine.FlushCache().find(Folder()), std::string::npos);
}

}  // namespace
}  // namespace runahead
