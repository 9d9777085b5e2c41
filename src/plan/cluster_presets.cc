// Machines that many people have. Efficiencies and bandwidths are what programs reach, not what data sheets promise.
#include <fmt/format.h>

#include "plan/cluster.h"
#include "runahead/error.h"

namespace runahead {

const std::vector<ClusterPreset>& ClusterPresets() {
  static const std::vector<ClusterPreset> presets = {
      {"8xh100-nvlink", R"(model = "llama-7b"
dtype = "bf16"
contexts = [4096, 8192, 16384, 32768]

[[devices]]
name = "H100"
count = 8
tflops = 989                 # dense bf16
efficiency = 0.72            # of it in large matmuls
attention_efficiency = 0.6
memory_gbs = 3350
layer_overhead_us = 30       # kernels that are neither

[links]
bandwidth_gbs = 360          # one way, through the switch
latency_us = 10
setup_us = 20
sharing = "ports"
)"},
      {"8xh200-nvlink", R"(model = "llama-7b"
dtype = "bf16"
contexts = [4096, 8192, 16384, 32768]

[[devices]]
name = "H200"
count = 8
tflops = 989
efficiency = 0.75
attention_efficiency = 0.65
memory_gbs = 4800
layer_overhead_us = 30

[links]
bandwidth_gbs = 370
latency_us = 10
setup_us = 20
sharing = "ports"
)"},
      {"4x4090-pcie", R"(model = "llama-3-8b"
dtype = "bf16"
contexts = [2048, 4096, 8192, 16384]

[[devices]]
name = "RTX 4090"
count = 4
tflops = 165                 # dense bf16, sums in f32
efficiency = 0.85
attention_efficiency = 0.7
memory_gbs = 1008
layer_overhead_us = 40

[links]                      # no peer access: through the host's memory
bandwidth_gbs = 12
latency_us = 20
setup_us = 30
sharing = "ports"
)"},
      {"2x8xh100-100gbe", R"(model = "llama-3-8b"
dtype = "bf16"
contexts = [8192, 16384, 32768, 65536]

[[devices]]
name = "H100"
count = 8
host = "first"
tflops = 989
efficiency = 0.72
attention_efficiency = 0.6
memory_gbs = 3350
layer_overhead_us = 30

[[devices]]
name = "H100"
count = 8
host = "second"
tflops = 989
efficiency = 0.72
attention_efficiency = 0.6
memory_gbs = 3350
layer_overhead_us = 30

[links]
bandwidth_gbs = 360
latency_us = 10
setup_us = 20
sharing = "ports"

[network]                    # 100 Gbit/s, one card for each host
bandwidth_gbs = 11.5
latency_us = 20
setup_us = 10
)"},
      {"4-mini-pcs-10gbe", R"(model = "llama-1b"
dtype = "bf16"
contexts = [1024, 2048, 4096, 8192]

[[devices]]
name = "mini PC"
count = 4
own_hosts = true
tflops = 0.8                 # 8 cores with AVX-512 BF16
efficiency = 0.8
attention_efficiency = 0.4
memory_gbs = 70

[network]
bandwidth_gbs = 1.15
latency_us = 50
setup_us = 10
)"},
      {"4-mini-pcs-2.5gbe", R"(model = "llama-1b"
dtype = "bf16"
contexts = [1024, 2048, 4096, 8192]

[[devices]]
name = "mini PC"
count = 4
own_hosts = true
tflops = 0.8                 # 8 cores with AVX-512 BF16
efficiency = 0.8
attention_efficiency = 0.4
memory_gbs = 70

[network]
bandwidth_gbs = 0.29
latency_us = 80
setup_us = 10
)"},
  };
  return presets;
}

const ClusterPreset& FindClusterPreset(std::string_view name) {
  std::string known;
  for (const ClusterPreset& preset : ClusterPresets()) {
    if (preset.name == name) return preset;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", preset.name);
  }
  throw ConfigError(fmt::format("cluster preset: expected one of {}, got '{}'", known, name));
}

}  // namespace runahead
