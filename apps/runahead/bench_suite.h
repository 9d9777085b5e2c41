// `runahead bench --suite`: the flags of whole suites of experiments.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

#include "runahead/engine.h"

namespace runahead::cli {

struct SuiteFlags {
  std::string name;  // empty: no suite
  std::string links = "full,link:10GB/s";
  int64_t probe_context = 0;
  int search_evaluations = 12;
  std::string plots;
  std::string from;
  std::string batch = "8,32";  // of the decode suite
  int requests = 60;           // of the serving suite
  double arrival_gap_ms = 0;   // mean time between them, ms; 0: from the time of a long prompt
  std::string text;            // file that the weights suite reads
  int64_t text_tokens = 4096;  // at most so many tokens of it
  int questions = 0;           // about logs of the demo, for its model
};

/// What a suite shares with a plain bench. Empty texts mean the suite's own defaults.
struct SuiteRequest {
  std::vector<std::string> models;
  EngineOptions engine;
  std::string contexts;
  std::string ranks;
  int repeats = 5;
  int warmup = 1;
  int decoded_tokens = 0;
  uint64_t seed = 0;
  std::string json;
  std::vector<std::pair<const char*, std::string>> outputs_of_a_bench;  // flag and file; empty file: not given
};

void AddSuiteFlags(CLI::App& command, SuiteFlags& flags);

/// Runs the suite, or with `from` reads what one wrote, and writes what was asked for. Throws as commands do.
int RunSuite(const SuiteFlags& flags, const SuiteRequest& request);

}  // namespace runahead::cli
