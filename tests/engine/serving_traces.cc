// Plays random traces of requests for as long as one likes: serving_traces [--seed S] [--runs N] [--devices
// cuda:0,0] [--deterministic yes] [--processes P] [--cache-dir DIR].
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/engine/serving.h"

int main(int argc, char** argv) try {
  unsigned seed = 1;
  int runs = 1000;
  std::string devices = "cpu";
  bool deterministic = false;
  int processes = 1;
  std::string cache_dir;
  if (argc > 1 && std::string(argv[1]) == "--serve-ranks") {
    runahead::ServeRanksOf({argv + 2, argv + argc});
    return 0;
  }
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--seed") seed = static_cast<unsigned>(std::strtoul(argv[i + 1], nullptr, 10));
    if (flag == "--runs") runs = std::atoi(argv[i + 1]);
    if (flag == "--devices") devices = argv[i + 1];
    if (flag == "--cache-dir") cache_dir = argv[i + 1];
    if (flag == "--processes") processes = std::atoi(argv[i + 1]);
    if (flag == "--deterministic") deterministic = std::string(argv[i + 1]) == "yes";
  }
  runahead::ServingEngines engines(cache_dir);
  runahead::TraceOutcome all;
  for (int run = 0; run < runs; ++run) {
    const runahead::TraceOutcome outcome =
        runahead::PlayTrace(engines, seed + static_cast<unsigned>(run), devices, deterministic, processes);
    all.requests += outcome.requests;
    all.differ += outcome.differ;
    all.gangs += outcome.gangs;
    all.cancelled += outcome.cancelled;
    all.cached_tokens += outcome.cached_tokens;
    if (outcome.differ > 0) std::printf("%s: %s\n", outcome.situation.c_str(), outcome.first_difference.c_str());
  }
  std::printf("%d traces, %d requests: %d differ; %d over several ranks, %d cancelled, %lld tokens from the cache\n",
              runs, all.requests, all.differ, all.gangs, all.cancelled, static_cast<long long>(all.cached_tokens));
  return all.differ > 0 ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "serving_traces: %s\n", error.what());
  return 2;
}
