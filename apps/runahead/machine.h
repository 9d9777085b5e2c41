// Facts about the machine that measurements are reported with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace runahead::cli {

struct MachineFacts {
  std::string cpu;                    // "AMD EPYC 9454"
  int processors = 0;                 // this process may use
  size_t memory_bytes = 0;            // of the machine; 0: unknown
  std::vector<std::string> features;  // of those that matter here
  bool native_bf16 = false;           // multiplies bf16 matrices natively
  std::string onednn;                 // version
};

MachineFacts DescribeMachine();

/// Milliseconds for which a hypervisor has let others run on this machine's processors while they had work, added up
/// over all processors since the machine started, in steps of some 10; 0 where nobody counts them.
int64_t StolenMilliseconds();

}  // namespace runahead::cli
