// What a tuner finds is used by its engine, and by engines that are loaded later.
#include "tune/tuner.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "model/model_loader.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

class TunerTest : public testing::Test {
 protected:
  TunerTest() {
    options_.devices = "cpu:2";
    options_.threads_per_rank = 1;
    options_.dtype = "f32";
    options_.tuned_folder = folder_.string();
  }
  ~TunerTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  [[nodiscard]] Engine Load() const { return Engine::Load(TinyModelFolder(), options_); }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("runahead-tuner-" + std::to_string(::getpid()));
  EngineOptions options_;
};

TEST_F(TunerTest, AProfileIsUsedAtOnceAndLater) {
  const Engine engine = Load();
  Tuner tuner(engine, options_.tuned_folder);
  EXPECT_FALSE(tuner.HasProfile());
  double share = 0;
  const StoredProfile stored = tuner.MeasureProfile(64, 1, [&](double done) { share = done; });
  EXPECT_EQ(share, 1);
  EXPECT_TRUE(std::filesystem::exists(stored.file));
  EXPECT_TRUE(tuner.HasProfile());
  EXPECT_TRUE(Tuner(Load(), options_.tuned_folder).HasProfile());

  std::ofstream(stored.file) << "{";
  const Tuner broken(Load(), options_.tuned_folder);
  EXPECT_FALSE(broken.HasProfile());
  EXPECT_NE(broken.Refused().find(stored.file.filename().string()), std::string::npos) << broken.Refused();
}

TEST_F(TunerTest, SearchesFillTheTable) {
  const Engine engine = Load();
  Tuner tuner(engine, options_.tuned_folder);
  SearchPlan plan;
  plan.contexts = {32};
  plan.ranks = {2};
  plan.topologies = {Topology::kChain};
  plan.repeats = 1;
  plan.most_evaluations = 3;
  const StoredSearches stored = tuner.Search(ModelConfig(TinyModelFolder()).spec(), plan, [](int64_t, int) {});
  EXPECT_TRUE(std::filesystem::exists(stored.file));
  ASSERT_EQ(stored.reports.size(), 2U);  // one rank alone, and both
  PrefillOptions searched;
  searched.topology = Topology::kChain;
  searched.partition = PartitionRequest::Parse("searched");
  Session session = engine.NewSession(32);
  EXPECT_EQ(session.Prefill(std::vector<int32_t>(32, 1), searched).cuts, stored.reports[1].best.partition.cuts());
}

}  // namespace
}  // namespace runahead
