// Where the time of a layer goes, and what decoding reads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiment/bench_run.h"

namespace runahead {

/// One operation of a layer, the mean over all layers.
struct OpShare {
  std::string op;
  double ms = 0;
  double share = 0;  // share of the pass
  double flops = 0;  // 0: bound by memory
  double bytes = 0;
};

/// Decoding behind one context.
struct DecodeMeasurement {
  int64_t context = 0;
  std::vector<double> ms;  // time of each token, ms
  double bytes = 0;        // bytes of weights and cache that a token reads

  [[nodiscard]] double MedianMs() const;
};

/// A prompt of `tokens` random ids through rank 0 of `engine`, each operation timed on the device.
std::vector<OpShare> MeasureOps(const Engine& engine, int64_t tokens);

/// One token each behind `batch` sequences of `context` tokens through rank 0 of `engine`, each operation timed on
/// the device. What lies in their caches is not computed.
std::vector<OpShare> MeasureStepOps(const Engine& engine, int batch, int64_t context);

/// The decoding behind the prompts of `measurement`.
DecodeMeasurement DecodingOf(const Measurement& measurement, const ModelFacts& facts);

}  // namespace runahead
