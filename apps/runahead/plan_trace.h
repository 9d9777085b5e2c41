// `runahead plan --trace`: a trace of requests, played on a described cluster with each policy.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "prefill/described_cluster.h"
#include "schedule/serving_simulation.h"

namespace runahead::cli {

/// The most requests of a trace.
inline constexpr int64_t kMostTraceRequests = 1'000'000;

/// What was played, and how it went.
struct ServingTable {
  std::string cluster;
  std::string model;
  std::string dtype;
  std::string trace;  // the file
  std::vector<ServingOutcome> outcomes;
};

/// The requests of a file of JSON lines, ordered by arrival: {"at_ms": 0, "prompt_tokens": 4000, "max_tokens": 100,
/// "prefix": "name", "prefix_tokens": 3000, "priority": 0}, the last three where they are wanted. Throws ConfigError
/// naming the file, the line, the field and the value for what is missing, unknown, of another type or out of range:
/// also for a prompt and its answer that take more than `room` tokens; IoError where it cannot be read.
std::vector<TraceRequest> ReadTrace(const std::string& path, int64_t room);

/// Pages of a KV-cache of so many bytes. Throws ConfigError when they hold none.
int32_t PagesOfMemory(const WorkShape& shape, size_t bytes);

/// Plays `path` on `described` with every policy.
ServingTable PlayTrace(const DescribedCluster& described, const std::string& path, const ServingLimits& limits);

std::string ToText(const ServingTable& table);
std::string ToJson(const ServingTable& table);

}  // namespace runahead::cli
