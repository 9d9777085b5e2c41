// Instructions of this machine's processor that matter to matrices.
#pragma once

#include <string>
#include <vector>

namespace runahead {

/// Their names as the kernel spells them, "avx2", "avx512_bf16"; empty where it does not tell.
std::vector<std::string> CpuFeatures();

}  // namespace runahead
