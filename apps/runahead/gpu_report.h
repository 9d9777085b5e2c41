// What `runahead bench` adds on a GPU: where the time of a layer goes, and how fast decoding is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiment/op_breakdown.h"

namespace runahead::cli {

struct GpuReport {
  double matmul_rate = 0;  // ceiling, FLOP/s
  double copy_rate = 0;    // ceiling, bytes per second read and written
  int64_t breakdown_context = 0;
  std::vector<OpShare> breakdown;
  std::vector<DecodeMeasurement> decoding;
};

std::string ToText(const GpuReport& report);
std::string ToJsonText(const GpuReport& report);

}  // namespace runahead::cli
