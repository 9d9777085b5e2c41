// What this build of the library is.
#pragma once

#include <string>
#include <vector>

#include "runahead/export.h"

namespace runahead {

struct BuildInfo {
  std::string version;                    // "0.1.0"
  std::string commit;                     // 12 hexadecimal digits of git, "-dirty" behind; empty: not known
  std::vector<std::string> parts;         // "cpu", and what it was built with: "cuda", "nccl"
  std::vector<std::string> cpu_features;  // vector and matrix instructions of this machine, "avx2", "amx_bf16"
  bool native_bf16 = false;               // whether bf16 weights compute in bf16 on this machine's processor
};

/// What was built, and what of it this machine can use.
RUNAHEAD_API BuildInfo DescribeBuild();

}  // namespace runahead
