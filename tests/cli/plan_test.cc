// plan and tune: what they print, write and refuse.
#include <fmt/format.h>
#include <sys/resource.h>

#include "tests/cli/fixture.h"
#include "tests/report/well_formed.h"

namespace runahead {
namespace {

class PlanTest : public CliTest {
 protected:
  static Json PlanJson(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"plan", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.exit_code == 0 ? Json::parse(outcome.out) : Json();
  }

  static void ExpectRefused(const std::vector<std::string>& arguments, const std::vector<std::string>& expected) {
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << Json(arguments);
    EXPECT_EQ(outcome.out, "");
    for (const std::string& part : expected) {
      EXPECT_NE(outcome.err.find(part), std::string::npos) << "'" << part << "' in: " << outcome.err;
    }
  }
};

TEST_F(PlanTest, CountersGiveTheWorkedExample) {
  const Outcome outcome = Runahead({"plan", "--counters", "--contexts", "9", "--ranks", "3", "--partition", "4,3,2"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* line :
       {"runahead chain, 9 tokens on 3 ranks: 21 dot products on the busiest rank, 22 entries of K and V moved",
        "tsp, 9 tokens on 3 ranks: 27 dot products on the busiest rank, 36 entries of K and V moved"}) {
    EXPECT_NE(outcome.out.find(line), std::string::npos) << outcome.out;
  }
}

TEST_F(PlanTest, PlansAPresetAndDrawsIt) {
  const Json json = PlanJson({"--preset", "4x4090-pcie", "--contexts", "2048,8192", "--svg", InFolder("p.svg"),
                              "--timeline", InFolder("t.svg"), "--trace-events", InFolder("t.json")});
  ASSERT_EQ(json.at("results").size(), 8U);
  for (const Json& row : json.at("results")) {
    EXPECT_EQ(row.at("strategies").size(), row.at("ranks") == 1 ? 1U : 5U);
    EXPECT_GT(row.at("ttft_ms").get<double>(), 0);
    EXPECT_LE(row.at("speed_up").get<double>(), row.at("ranks").get<double>() * 1.0001);
    EXPECT_EQ(row.at("busiest_link_bytes").get<int64_t>() > 0, row.at("ranks") != 1);
  }
  for (const char* picture : {"p.svg", "t.svg"}) EXPECT_EQ(report::WhatIsWrongWith(ReadFile(InFolder(picture))), "");
  EXPECT_GT(Json::parse(ReadFile(InFolder("t.json"))).at("traceEvents").size(), 100U);
}

TEST_F(PlanTest, PlansRowsInFewerBits) {
  WriteFile(InFolder("hosts.toml"), R"(model = "llama-3-8b"
contexts = [4096]
[[devices]]
name = "d"
count = 2
tflops = 20
[links]
bandwidth_gbs = 0.0125
)");
  std::map<std::string, std::map<std::string, Json>> planned;  // [format][strategy]
  for (const std::string format : {"exact", "int8", "fp8", "int4"}) {
    const Json json = PlanJson({InFolder("hosts.toml"), "--ranks", "2", "--partition", "even", "--wire", format});
    ASSERT_TRUE(json.is_object());
    EXPECT_EQ(json.at("wire"), format);
    for (const Json& scheme : json.at("results").at(0).at("strategies")) {
      planned[format][scheme.at("strategy").get<std::string>()] = scheme;
    }
  }
  // Of a head of 128 features 256 bytes in bf16, and behind bf16 scales 128 + 2 or, in 4 bits, 64 + 4 x 2.
  const std::map<std::string, double> bytes = {{"exact", 256}, {"int8", 130}, {"fp8", 130}, {"int4", 72}};
  for (const auto& [format, json] : planned) {
    const Json& chain = json.at("runahead chain");
    const Json& exact = planned.at("exact").at("runahead chain");
    EXPECT_NEAR(chain.at("busiest_link_bytes").get<double>(),
                exact.at("busiest_link_bytes").get<double>() * bytes.at(format) / 256, 1)
        << format;
    if (format != "exact") {
      EXPECT_LT(chain.at("ttft_ms"), exact.at("ttft_ms")) << format;
    }
    EXPECT_EQ(json.at("tp"), planned.at("exact").at("tp")) << format;
  }
}

TEST_F(PlanTest, RefusesFormatsThatAreNone) {
  ExpectRefused({"plan", "--wire", "auto"}, {"--wire", "'auto'"});
  ExpectRefused({"plan", "--wire", "int2"}, {"wire", "'int2'"});
  ExpectRefused({"plan", "--wire", "int8", "--counters"}, {"--counters", "--wire"});
}

TEST_F(PlanTest, PlaysATraceWithEachPolicy) {
  std::string lines;
  for (int i = 0; i < 60; ++i) {
    lines += fmt::format("{{\"at_ms\": {}, \"prompt_tokens\": {}, \"max_tokens\": 20", 10 * (59 - i),
                         i % 6 == 0 ? 12000 : 400);
    lines += i % 2 == 0 ? "}\n" : ", \"prefix\": \"manual\", \"prefix_tokens\": 300}\n\n";
  }
  WriteFile(InFolder("t.jsonl"), lines);
  const Json json = PlanJson({"--preset", "8xh100-nvlink", "--trace", InFolder("t.jsonl")});
  ASSERT_EQ(json.at("policies").size(), 3U);
  for (const Json& policy : json.at("policies")) {
    EXPECT_EQ(policy.at("requests"), 60);
    EXPECT_EQ(policy.at("refused"), 0);
    EXPECT_EQ(policy.at("new_tokens"), 60 * 20);
    const bool over_all = policy.at("policy") == "every prompt over all ranks";  // reads again what is far away
    EXPECT_TRUE(over_all || policy.at("cached_tokens") > 300);
    EXPECT_GT(policy.at("tokens_per_second"), 0);
    for (const char* measure : {"ttft_ms", "tpot_ms", "longest_pause_ms"}) {
      EXPECT_GT(policy.at(measure).at("p50"), 0);
      EXPECT_LE(policy.at(measure).at("p50"), policy.at(measure).at("p90"));
      EXPECT_LE(policy.at(measure).at("p90"), policy.at(measure).at("p99"));
    }
  }
  const Json& best = json.at("policies").at(0);
  EXPECT_EQ(best.at("policy"), "gang and spread");
  EXPECT_GE(best.at("over_several_ranks"), 10);
  for (const int other : {1, 2}) {
    EXPECT_LT(best.at("ttft_ms").at("mean"), json.at("policies").at(other).at("ttft_ms").at("mean"));
  }
  const Outcome text = Runahead({"plan", "--trace", InFolder("t.jsonl"), "--max-pause", "50", "--kv-memory", "8GB"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  for (const char* part :
       {"\ngang and spread ", "\nevery prompt alone ", "\nevery prompt over all ranks ", "TTFT", "99 %"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << text.out;
  }
}

TEST_F(PlanTest, RefusesWrongTraces) {
  const std::string file = InFolder("wrong.jsonl");
  const auto expect = [&](const std::string& line, const std::string& what) {
    WriteFile(file, "{\"at_ms\": 0, \"prompt_tokens\": 5, \"max_tokens\": 1}\n" + line + "\n");
    ExpectRefused({"plan", "--trace", file, "--kv-memory", "1GiB"}, {file + ":2: " + what});
  };
  expect("{", "");
  expect("[]", "");
  expect(R"({"prompt_tokens": 5, "max_tokens": 1})", "at_ms is missing");
  expect(R"({"at_ms": -1, "prompt_tokens": 5, "max_tokens": 1})", "at_ms: expected a time from 0");
  expect(R"({"at_ms": 0, "prompt_tokens": 0, "max_tokens": 1})", "prompt_tokens: ");
  expect(R"({"at_ms": 0, "prompt_tokens": 2049, "max_tokens": 1})", "prompt_tokens: ");
  expect(R"({"at_ms": 0, "prompt_tokens": 5, "max_tokens": "1"})", "max_tokens: ");
  expect(R"({"at_ms": 0, "prompt_tokens": 5, "max_tokens": 1, "prefix": "a"})", "prefix_tokens is missing");
  expect(R"({"at_ms": 0, "prompt_tokens": 5, "max_tokens": 1, "prefix": "a", "prefix_tokens": 6})",
         "prefix_tokens: ");
  expect(R"({"at_ms": 0, "prompt_tokens": 5, "max_tokens": 1, "prefix_tokens": 2})", "prefix_tokens: ");
  expect(R"({"at_ms": 0, "prompt_tokens": 5, "max_tokens": 1, "tokens": 2})", "tokens: is not known here");
  WriteFile(file, "\n");
  ExpectRefused({"plan", "--trace", file}, {file + ": holds no request"});
  ExpectRefused({"plan", "--trace", file, "--svg", InFolder("x.svg")}, {"--svg: ", "x.svg"});
  ExpectRefused({"plan", "--trace", file, "--kv-memory", "1MB"}, {"--kv-memory: 1000000 bytes"});
  ExpectRefused({"plan", "--max-pause", "50"}, {"--max-pause"});
  ExpectRefused({"plan", "--trace", InFolder("none.jsonl")}, {InFolder("none.jsonl")});
}

TEST_F(PlanTest, OneRankCountIsDrawnAsBarsUpToTheRanks) {
  PlanJson({"--preset", "4x4090-pcie", "--ranks", "4", "--contexts", "4096,16384", "--svg", InFolder("bars.svg")});
  const std::string svg = ReadFile(InFolder("bars.svg"));
  EXPECT_EQ(report::WhatIsWrongWith(svg), "");
  EXPECT_EQ(report::Count(svg, "<rect class=\"bar "), 2);
  for (const char* part : {">0<", ">1<", ">2<", ">3<", ">4<", ">16,384 tokens<"}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  }
}

TEST_F(PlanTest, TitlesNameTheFolderNotItsPath) {
  PlanJson({"--preset", "4x4090-pcie", "--model", Model() + "/", "--contexts", "64,96", "--svg", InFolder("n.svg")});
  const std::string svg = ReadFile(InFolder("n.svg"));
  EXPECT_EQ(svg.find(Model()), std::string::npos);
  EXPECT_NE(svg.find(">model on 4x4090-pcie: "), std::string::npos) << svg.substr(0, 3000);
}

/// Seconds of processor time of the programs that were run so far.
double SecondsOfPrograms() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Every strategy on up to 1,024 unequal devices, on hosts of eight with some links of their own. It takes 0.8 s of
// processor time, and four times as long where each transfer is an event of its own.
TEST_F(PlanTest, PlansAThousandDevicesInTwoSeconds) {
  std::string toml = "model = \"llama-7b\"\ncontexts = [131072]\n";
  for (int host = 0; host < 128; ++host) {
    toml += fmt::format("[[devices]]\nname = \"d{0}\"\ncount = 8\nhost = \"h{0}\"\ntflops = {1}\n", host,
                        100 + host * 37 % 500);
  }
  toml += "[links]\nbandwidth_gbs = 100\n[network]\nbandwidth_gbs = 25\nlatency_us = 8\n";
  for (int from = 0; from < 1023; from += 16) {
    toml += fmt::format("[[link]]\nfrom = {}\nto = {}\nbandwidth_gbs = {}\n", from, from + 1, 1 + from % 90);
  }
  WriteFile(InFolder("large.toml"), toml);
  const double before_s = SecondsOfPrograms();
  const Json json = PlanJson({InFolder("large.toml")});
  EXPECT_LE(SecondsOfPrograms() - before_s, 2);
  EXPECT_EQ(json.at("results").back().at("ranks"), 1024);
  EXPECT_EQ(json.at("results").back().at("strategies").size(), 5U);
}

TEST_F(PlanTest, AShownPresetIsADescription) {
  const Outcome shown = Runahead({"plan", "--preset", "2x8xh100-100gbe", "--show-preset"});
  EXPECT_EQ(shown.exit_code, 0);
  WriteFile(InFolder("own.toml"), shown.out);
  const Json own = PlanJson({InFolder("own.toml"), "--ranks", "1,16", "--contexts", "8192"});
  const Json preset = PlanJson({"--preset", "2x8xh100-100gbe", "--ranks", "1,16", "--contexts", "8192"});
  EXPECT_EQ(own.at("results"), preset.at("results"));
}

TEST_F(PlanTest, LeavesOutASlowDevice) {
  WriteFile(InFolder("slow.toml"),
            "model = \"llama-7b\"\ncontexts = [4096]\n[[devices]]\nname = \"fast\"\ncount = 2\ntflops = 100\n"
            "[[devices]]\nname = \"old\"\ntflops = 0.01\n[links]\nbandwidth_gbs = 50\n");
  const Outcome outcome = Runahead({"plan", InFolder("slow.toml")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("4,096 tokens on 3 ranks: better without device 2 (old)"), std::string::npos)
      << outcome.out;
}

TEST_F(PlanTest, RefusesByName) {
  WriteFile(InFolder("bad.toml"),
            "model = \"llama-7b\"\ncontexts = [1]\n[[devices]]\nname = \"a\"\ntflops = \"x\"\n");
  ExpectRefused({"plan", InFolder("bad.toml")}, {InFolder("bad.toml"), "devices[0]", "tflops", "\"x\""});
  ExpectRefused({"plan", InFolder("none.toml")}, {InFolder("none.toml")});
  ExpectRefused({"plan", "--preset", "9xh100"}, {"9xh100", "8xh100-nvlink"});
  ExpectRefused({"plan", "--model", "llama-8t"}, {"llama-8t"});
  ExpectRefused({"plan", "--ranks", "9"}, {"--ranks", "'9'"});
  ExpectRefused({"plan", "--ranks", "3", "--partition", "1,2"}, {"3 fractions", "2"});
  ExpectRefused({"plan", "--partition", "searched"}, {"partition: ", "auto"});
}

TEST_F(PlanTest, TuneMeasuresSearchesAndChecks) {
  const std::vector<std::string> common = {
      "tune", "--model", Model(),           "--devices",  "cpu:2", "--threads-per-rank", "1", "--dtype",
      "f32",  "--tuned", InFolder("tuned"), "--contexts", "48,90", "--repeats",          "1"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = common;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Runahead(arguments);
  };
  const Outcome unmeasured = with({"--check"});
  EXPECT_EQ(unmeasured.exit_code, 2);
  EXPECT_NE(unmeasured.err.find("no cost profile"), std::string::npos) << unmeasured.err;
  const Outcome outcome = with({"--profile", "--search", "--check", "--json", InFolder("check.json"), "--partitions",
                                "even,auto,searched,predicted"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("largest difference"), std::string::npos);
  // Per context: single, two topologies x four partitions, tsp and tsp-causal.
  const Json checked = Json::parse(ReadFile(InFolder("check.json"))).at("checked");
  EXPECT_EQ(checked.size(), 2U * (1 + 8 + 2));
  for (const Json& way : checked) {
    EXPECT_EQ(way.at("rounds"), 1);
    EXPECT_LE(way.at("undisturbed_rounds"), way.at("rounds"));
  }
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(InFolder("tuned"))) {
    ++files;
    EXPECT_TRUE(LoadJson(entry.path()).contains("key")) << entry.path();
  }
  EXPECT_EQ(files, 2);

  const std::vector<std::string> prompt = {"--prompt", std::string(60, 'x'), "-n", "1",       "--devices",
                                           "cpu:2",    "--threads-per-rank", "1",  "--dtype", "f32",
                                           "--tuned",  InFolder("tuned")};
  EXPECT_EQ(GenerateJson(prompt).at("plan").get<std::string>().find("partition table: ranks used"), 0U);
  // The same files for other ranks: refused, and said.
  std::vector<std::string> other = prompt;
  other.insert(other.end(), {"--rank-slowdown", "1,2"});
  const std::string plan = GenerateJson(other).at("plan");
  EXPECT_NE(plan.find("measured for device 1"), std::string::npos) << plan;
}

}  // namespace
}  // namespace runahead
