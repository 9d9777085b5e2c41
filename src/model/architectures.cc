#include "model/architectures.h"

#include <fmt/format.h>

#include <array>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr std::array<Architecture, 41> kArchitectures = {{
    {"LlamaForCausalLM", "llama", &ParseLlama},
    {"MistralForCausalLM", "mistral", &ParseMistral},
    {"Qwen2ForCausalLM", "qwen2", &ParseQwen2},
    {"Qwen3ForCausalLM", "qwen3", &ParseQwen3},
    {"Phi3ForCausalLM", "phi3", &ParsePhi3},
    {"Gemma2ForCausalLM", "gemma2", &ParseGemma2},
    {"FalconForCausalLM", "falcon", &ParseFalcon},
    {"GPTNeoXForCausalLM", "gpt_neox", &ParseGptNeoX},
    {"GemmaForCausalLM", "gemma", &ParseGemma},
    {"Gemma3ForCausalLM", "gemma3_text", &ParseGemma3},
    {"Gemma3ForConditionalGeneration", "gemma3", &ParseGemma3WithImages},
    {"Olmo2ForCausalLM", "olmo2", &ParseOlmo2},
    {"Olmo3ForCausalLM", "olmo3", &ParseOlmo3},
    {"GraniteForCausalLM", "granite", &ParseGranite},
    {"SmolLM3ForCausalLM", "smollm3", &ParseSmolLm3},
    {"StableLmForCausalLM", "stablelm", &ParseStableLm},
    {"Starcoder2ForCausalLM", "starcoder2", &ParseStarcoder2},
    {"PhiForCausalLM", "phi", &ParsePhi},
    {"CohereForCausalLM", "cohere", &ParseCohere},
    {"Cohere2ForCausalLM", "cohere2", &ParseCohere2},
    {"GlmForCausalLM", "glm", &ParseGlm},
    {"Glm4ForCausalLM", "glm4", &ParseGlm4},
    {"Exaone4ForCausalLM", "exaone4", &ParseExaone4},
    {"Ministral3ForCausalLM", "ministral3", &ParseMinistral3},
    {"Mistral3ForConditionalGeneration", "mistral3", &ParseMistral3},
    {"NemotronForCausalLM", "nemotron", &ParseNemotron},
    {"InternLM2ForCausalLM", "internlm2", &ParseInternLm2},
    {"InternLM3ForCausalLM", "internlm3", &ParseInternLm3},
    {"GPT2LMHeadModel", "gpt2", &ParseGpt2},
    {"OPTForCausalLM", "opt", &ParseOpt},
    {"BloomForCausalLM", "bloom", &ParseBloom},
    {"BaichuanForCausalLM", "baichuan", &ParseBaichuan},
    {"MixtralForCausalLM", "mixtral", &ParseMixtral},
    {"Qwen2MoeForCausalLM", "qwen2_moe", &ParseQwen2Moe},
    {"Qwen3MoeForCausalLM", "qwen3_moe", &ParseQwen3Moe},
    {"OlmoeForCausalLM", "olmoe", &ParseOlmoe},
    {"GraniteMoeForCausalLM", "granitemoe", &ParseGraniteMoe},
    {"GraniteMoeSharedForCausalLM", "granitemoeshared", &ParseGraniteMoeShared},
    {"GptOssForCausalLM", "gpt_oss", &ParseGptOss},
    {"DeepseekV2ForCausalLM", "deepseek_v2", &ParseDeepseekV2},
    {"DeepseekV3ForCausalLM", "deepseek_v3", &ParseDeepseekV3},
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
