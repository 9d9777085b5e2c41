#include "model/architectures.h"

#include <fmt/format.h>

#include <array>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr std::array<Architecture, 8> kArchitectures = {{
    {"LlamaForCausalLM", "llama", &ParseLlama},
    {"MistralForCausalLM", "mistral", &ParseMistral},
    {"Qwen2ForCausalLM", "qwen2", &ParseQwen2},
    {"Qwen3ForCausalLM", "qwen3", &ParseQwen3},
    {"Phi3ForCausalLM", "phi3", &ParsePhi3},
    {"Gemma2ForCausalLM", "gemma2", &ParseGemma2},
    {"FalconForCausalLM", "falcon", &ParseFalcon},
    {"GPTNeoXForCausalLM", "gpt_neox", &ParseGptNeoX},
}};

const Architecture* FindByName(std::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
  }
  return nullptr;
}

}  // namespace

std::string ArchitectureNames() {
  std::string names;
  for (const Architecture& architecture : kArchitectures) {
    names += names.empty() ? "" : ", ";
    names += architecture.name;
  }
  return names;
}

const Architecture& FindArchitecture(const JsonObject& config) {
  const std::string known = fmt::format("expected one of {}", ArchitectureNames());
  if (config.Has("architectures")) {
    const Json& names = config.At("architectures");
    if (!names.is_array() || names.size() != 1 || !names[0].is_string()) config.Refuse("architectures", known);
    const Architecture* found = FindByName(names[0].get<std::string>());
    if (found == nullptr) config.Refuse("architectures", known);
    return *found;
  }
  const std::string model_type = config.String("model_type");
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.model_type == model_type) return architecture;
  }
  config.Refuse("model_type", fmt::format("expected that of one of {}", ArchitectureNames()));
}

std::string_view FamilyOf(std::string_view architecture) {
  const Architecture* found = FindByName(architecture);
  CHECK(found != nullptr);
  return found->model_type;
}

}  // namespace runahead
