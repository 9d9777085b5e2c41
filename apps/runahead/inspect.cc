// `runahead inspect`: what a model folder holds and what it needs.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

#include "base/json.h"
#include "command.h"
#include "engine/devices.h"
#include "machine.h"
#include "model/architectures.h"
#include "model/model_info.h"
#include "model/workspace.h"
#include "output.h"
#include "report/table.h"
#include "report/units.h"

namespace runahead::cli {
namespace {

struct Flags {
  std::string model;
  bool json = false;
};

/// Memory for a prompt as long as the context, beside the weights, which the ranks of a machine share.
struct Needs {
  int ranks = 0;
  size_t cache_bytes = 0;      // of the rank that ends up with the whole cache
  size_t workspace_bytes = 0;  // of one rank
};

std::vector<Needs> NeedsByRanks(const DecoderSpec& spec, DType compute) {
  std::vector<Needs> all;
  for (const int ranks : {1, 2, 4, 8}) {
    const int64_t chunk = (spec.max_positions + ranks - 1) / ranks;
    all.push_back({ranks, static_cast<size_t>(spec.max_positions) * spec.kv_shape(compute).BytesPerToken(),
                   Workspace::Bytes(spec, compute, chunk)});
  }
  return all;
}

std::string ToJson(const ModelInfo& info, const MachineFacts& machine) {
  const DecoderSpec& spec = info.spec;
  const DType compute = PreferredDType(spec.weights);
  Json memory = Json::array();
  for (const Needs& needs : NeedsByRanks(spec, compute)) {
    memory.push_back(
        {{"ranks", needs.ranks}, {"kv_cache_bytes", needs.cache_bytes}, {"workspace_bytes", needs.workspace_bytes}});
  }
  const Json json = {{"family", spec.family},
                     {"architecture", spec.architecture},
                     {"parameters", info.parameters},
                     {"weight_bytes", info.weight_bytes},
                     {"dtypes", info.dtypes},
                     {"files", info.files},
                     {"context", spec.max_positions},
                     {"layers", spec.layers},
                     {"hidden", spec.hidden},
                     {"q_heads", spec.q_heads},
                     {"kv_heads", spec.kv_heads},
                     {"head_dim", spec.head_dim},
                     {"ffn", spec.ffn},
                     {"vocab", spec.vocab},
                     {"tied_head", spec.tied_head},
                     {"compute_dtype", Name(compute)},
                     {"kv_bytes_per_token", spec.kv_shape(compute).BytesPerToken()},
                     {"full_context", memory},
                     {"devices", {fmt::format("cpu:{}", machine.processors)}},
                     {"cpu", machine.cpu},
                     {"cpu_features", machine.features},
                     {"processors", machine.processors},
                     {"memory_bytes", machine.memory_bytes},
                     {"onednn", machine.onednn}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string ToText(const ModelInfo& info, const MachineFacts& machine) {
  using report::Bytes;
  using report::Grouped;
  const DecoderSpec& spec = info.spec;
  const DType compute = PreferredDType(spec.weights);
  std::string text = fmt::format(
      "family        {} ({})\n"
      "parameters    {}\n"
      "weights       {} of {} in {} file{}\n"
      "context       {} tokens\n"
      "shape         {} layers of {} features, MLP {}, vocabulary {}{}\n"
      "heads         {} for queries, {} for keys and values, of {} features\n"
      "KV-cache      {} per token in {}\n"
      "processor     {}, {} to use ({})\n"
      "computes in   {}\n\n",
      spec.family, spec.architecture, Grouped(info.parameters), Bytes(info.weight_bytes),
      fmt::join(info.dtypes, ", "), info.files, info.files == 1 ? "" : "s", Grouped(spec.max_positions), spec.layers,
      Grouped(spec.hidden), Grouped(spec.ffn), Grouped(spec.vocab), spec.tied_head ? ", tied head" : "", spec.q_heads,
      spec.kv_heads, spec.head_dim, Bytes(spec.kv_shape(compute).BytesPerToken()), Name(compute), machine.cpu,
      machine.processors, fmt::join(machine.features, " "), Name(compute));
  std::vector<std::vector<std::string>> rows;
  for (const Needs& needs : NeedsByRanks(spec, compute)) {
    rows.push_back({std::to_string(needs.ranks), Bytes(needs.cache_bytes), Bytes(needs.workspace_bytes),
                    Bytes(needs.cache_bytes + needs.workspace_bytes)});
  }
  return text + "A prompt of the whole context needs, on its last rank and beside the weights:\n\n" +
         report::FormatTable({{"ranks"}, {"KV-cache"}, {"workspace"}, {"together"}}, rows);
}

int Run(const Flags& flags) {
  const ModelInfo info = DescribeModel(flags.model);
  const MachineFacts machine = DescribeMachine();
  WriteOut(flags.json ? ToJson(info, machine) : ToText(info, machine));
  return 0;
}

}  // namespace

Action AddInspect(CLI::App& command) {
  auto flags = std::make_shared<Flags>();
  command.add_option("model", flags->model, "A Hugging Face folder")->required()->type_name("MODEL");
  command.add_flag("--json", flags->json, "Print one JSON object");
  return [flags] { return Run(*flags); };
}

}  // namespace runahead::cli
