// Facts about the machine that measurements are reported with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace runahead {

struct MachineFacts {
  std::string cpu;                    // "AMD EPYC 9454"
  int processors = 0;                 // processors that this process may use
  size_t memory_bytes = 0;            // memory of the machine, bytes; 0: unknown
  std::vector<std::string> features;  // names of the processor's features that matter here
  bool native_bf16 = false;           // multiplies bf16 matrices natively
  std::string f32_kernel;             // what multiplies matrices in f32
  std::string bf16_kernel;            // and in bf16
  std::string int8_kernel;            // and by weights in int8 and int4
};

MachineFacts DescribeMachine();

}  // namespace runahead
