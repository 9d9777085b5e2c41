#!/usr/bin/env python3
"""Writes tests/model/goldens/: tiny random models with what HF transformers computes from them.

    pip install torch transformers safetensors
    python3 tools/make_goldens.py [NAME ...]

Each folder is a model as users have it (config.json, safetensors) and a golden.json: the seed and versions, the
prompts, the logits of the first and last position in float32, and the next 12 greedy tokens.
Weights are spread so that attention is far from uniform; norm weights and biases are perturbed so that none cancels.
A model whose greedy choice is close is refused: pick another seed.
"""
import argparse
import json
import pathlib
import shutil
import sys

import torch
import transformers
from transformers import (AutoModelForCausalLM, BloomConfig, Cohere2Config, CohereConfig, DeepseekV2Config,
                          DeepseekV3Config, Exaone4Config, FalconConfig, Gemma2Config, Gemma3TextConfig, GemmaConfig,
                          Glm4Config, GlmConfig, GPT2Config, GPTNeoXConfig, GptOssConfig, GraniteConfig,
                          GraniteMoeConfig, GraniteMoeSharedConfig, InternLM3Config, LlamaConfig, Ministral3Config,
                          MistralConfig, MixtralConfig, NemotronConfig, Olmo2Config, Olmo3Config, OlmoeConfig,
                          OPTConfig, Phi3Config, PhiConfig, Qwen2Config, Qwen2MoeConfig, Qwen3Config, Qwen3MoeConfig,
                          SmolLM3Config, StableLmConfig, Starcoder2Config)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from model_families import prepare, rewrite  # noqa: E402
from pack_weights import pack  # noqa: E402

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "model" / "goldens"
PROMPT_LENGTHS = [1, 7, 64, 333]
GREEDY_TOKENS = 12
MIN_GREEDY_GAP = 1e-3  # share of the largest |logit|: ten times what an implementation may err

BASE = dict(hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
            vocab_size=53, max_position_embeddings=512, bos_token_id=1, eos_token_id=2)
# Families that name their fields differently take what BASE has in common with them.
PLAIN_BASE = {key: value for key, value in BASE.items() if key not in ("intermediate_size", "num_key_value_heads")}
FALCON_BASE = dict(PLAIN_BASE, ffn_hidden_size=24)
NEOX_BASE = dict(PLAIN_BASE, intermediate_size=24)
LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64)

# Inputs of whole groups of 32, and of one and a half.
PACKED_SIZES = dict(hidden_size=48, num_attention_heads=6, num_key_value_heads=2, intermediate_size=96)

# name: (config class, its fields beyond BASE, dtype of the files, options)
MODELS = {
    "llama-mha-f32": (LlamaConfig, dict(), "float32", {}),
    "llama-gqa-tied-bf16": (LlamaConfig, dict(num_key_value_heads=2, tie_word_embeddings=True, vocab_size=64),
                            "bfloat16", {}),
    "llama-mqa-wide-heads-f16": (LlamaConfig, dict(num_key_value_heads=1, head_dim=24, rms_norm_eps=1e-3,
                                                   hidden_act="gelu"), "float16", {}),
    "llama-biases-f32": (LlamaConfig, dict(num_key_value_heads=2, attention_bias=True, mlp_bias=True, vocab_size=57,
                                           intermediate_size=30), "float32", {}),
    "llama-odd-sizes-f32": (LlamaConfig, dict(hidden_size=30, num_attention_heads=5, num_key_value_heads=1,
                                              intermediate_size=23, vocab_size=61, num_hidden_layers=3,
                                              hidden_act="gelu_pytorch_tanh"), "float32", {}),
    "llama-llama3-rope-bf16": (LlamaConfig, dict(num_key_value_heads=2, head_dim=32,
                                                 rope_parameters=dict(LLAMA3_ROPE, rope_theta=500000.0)),
                               "bfloat16", {}),
    "llama-llama3-rope-old-bf16": (LlamaConfig, dict(num_key_value_heads=2, head_dim=16,
                                                     rope_parameters=dict(LLAMA3_ROPE, rope_theta=100000.0)),
                                   "bfloat16", {"old_rope": "rope_type"}),
    "llama-linear-rope-old-f16": (LlamaConfig, dict(num_key_value_heads=2, rope_parameters=dict(
        rope_type="linear", factor=2.5, rope_theta=20000.0)), "float16", {"old_rope": "type"}),
    "llama-linear-rope-shards-bf16": (LlamaConfig, dict(num_key_value_heads=2, num_hidden_layers=3,
                                                        rope_parameters=dict(rope_type="linear", factor=4.0,
                                                                             rope_theta=10000.0)),
                                      "bfloat16", {"max_shard_size": 20_000}),
    "mistral-window-bf16": (MistralConfig, dict(num_key_value_heads=2, sliding_window=21), "bfloat16", {}),
    "mistral-no-window-f16": (MistralConfig, dict(num_key_value_heads=2, sliding_window=None, head_dim=16), "float16",
                              {}),
    "qwen2-bf16": (Qwen2Config, dict(num_key_value_heads=2, tie_word_embeddings=True), "bfloat16", {}),
    "qwen2-windows-bf16": (Qwen2Config, dict(num_key_value_heads=1, num_hidden_layers=3, use_sliding_window=True,
                                             sliding_window=40, max_window_layers=1), "bfloat16", {}),
    "qwen3-bf16": (Qwen3Config, dict(num_key_value_heads=2, head_dim=16, tie_word_embeddings=True), "bfloat16", {}),
    "qwen3-windows-f32": (Qwen3Config, dict(num_key_value_heads=1, head_dim=12, num_hidden_layers=3,
                                            attention_bias=True, use_sliding_window=True, sliding_window=33,
                                            max_window_layers=1), "float32", {}),
    "falcon-7b-bf16": (FalconConfig, dict(hidden_size=40, num_attention_heads=5), "bfloat16", {}),
    "falcon-40b-f32": (FalconConfig, dict(new_decoder_architecture=True, num_kv_heads=2), "float32", {}),
    "falcon-11b-f16": (FalconConfig, dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1,
                                          tie_word_embeddings=False), "float16", {}),
    "falcon-rw-f32": (FalconConfig, dict(hidden_size=36, num_attention_heads=6, alibi=True, multi_query=False,
                                         parallel_attn=False, bias=True), "float32", {}),
    "falcon-multi-head-bf16": (FalconConfig, dict(multi_query=False, bias=True), "bfloat16", {}),
    "gpt-neox-bf16": (GPTNeoXConfig, dict(), "bfloat16", {}),
    "gpt-neox-sequential-f32": (GPTNeoXConfig, dict(use_parallel_residual=False, attention_bias=False,
                                                    hidden_act="gelu_new",
                                                    rope_parameters=dict(rope_type="default", rope_theta=30000.0,
                                                                         partial_rotary_factor=0.75)),
                                "float32", {}),
    "phi3-window-bf16": (Phi3Config, dict(num_key_value_heads=2, sliding_window=50, pad_token_id=0), "bfloat16", {}),
    "phi3-longrope-f32": (Phi3Config, dict(hidden_size=48, num_attention_heads=3, num_key_value_heads=1, pad_token_id=0, original_max_position_embeddings=64,
                                           rope_parameters=dict(
                                               rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                                               short_factor=[1.0, 1.05, 1.1, 1.3, 1.6, 2.0],
                                               long_factor=[1.0, 1.5, 2.5, 5.0, 9.0, 14.0])), "float32", {}),
    "gemma2-bf16": (Gemma2Config, dict(num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=24,
                                       sliding_window=40), "bfloat16", {}),
    "gemma2-caps-f32": (Gemma2Config, dict(num_key_value_heads=1, head_dim=8, num_hidden_layers=3, sliding_window=9,
                                           query_pre_attn_scalar=4, attn_logit_softcapping=2.0,
                                           final_logit_softcapping=5.0, attention_bias=True), "float32", {}),
    "gemma-bf16": (GemmaConfig, dict(num_key_value_heads=1, head_dim=12), "bfloat16", {}),
    "gemma3-f16": (Gemma3TextConfig, dict(num_key_value_heads=2, head_dim=12, num_hidden_layers=3, sliding_window=40,
                                          sliding_window_pattern=2, query_pre_attn_scalar=24,
                                          rope_parameters=dict(
                                              full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e5),
                                              sliding_attention=dict(rope_type="default", rope_theta=1e4))),
                   "float16", {}),
    "olmo2-bf16": (Olmo2Config, dict(num_key_value_heads=2), "bfloat16", {}),
    "olmo3-bf16": (Olmo3Config, dict(num_key_value_heads=2, num_hidden_layers=4, sliding_window=40,
                                     rope_parameters=dict(
                                         full_attention=dict(rope_type="yarn", factor=8.0, rope_theta=5e5,
                                                             original_max_position_embeddings=64),
                                         sliding_attention=dict(rope_type="default", rope_theta=5e5))),
                   "bfloat16", {}),
    "granite-bf16": (GraniteConfig, dict(num_key_value_heads=2, embedding_multiplier=12.0, residual_multiplier=0.22,
                                         attention_multiplier=0.2, logits_scaling=8.0), "bfloat16", {}),
    "smollm3-bf16": (SmolLM3Config, dict(num_key_value_heads=2, num_hidden_layers=4, pad_token_id=0), "bfloat16", {}),
    "stablelm-f16": (StableLmConfig, dict(num_key_value_heads=2, use_qkv_bias=True, qk_layernorm=True), "float16", {}),
    "starcoder2-bf16": (Starcoder2Config, dict(num_key_value_heads=2, sliding_window=50), "bfloat16", {}),
    "phi-f16": (PhiConfig, dict(), "float16", {}),
    "phi-tied-f32": (PhiConfig, dict(tie_word_embeddings=True), "float32", {}),
    "cohere-bf16": (CohereConfig, dict(num_key_value_heads=2, use_qk_norm=True, logit_scale=0.25), "bfloat16", {}),
    "cohere2-bf16": (Cohere2Config, dict(num_key_value_heads=2, num_hidden_layers=4, sliding_window=40,
                                         logit_scale=0.25), "bfloat16", {}),
    "glm-bf16": (GlmConfig, dict(num_key_value_heads=2, head_dim=12, pad_token_id=0), "bfloat16", {}),
    "glm4-bf16": (Glm4Config, dict(num_key_value_heads=2, head_dim=12, pad_token_id=0), "bfloat16", {}),
    "exaone4-bf16": (Exaone4Config, dict(num_key_value_heads=2, num_hidden_layers=4, sliding_window=40), "bfloat16", {}),
    "ministral3-bf16": (Ministral3Config, dict(num_key_value_heads=2, head_dim=12, pad_token_id=0, rope_parameters=dict(
        rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=60, beta_fast=32.0,
        beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3)), "bfloat16", {}),
    "nemotron-bf16": (NemotronConfig, dict(num_key_value_heads=2), "bfloat16", {}),
    "internlm3-bf16": (InternLM3Config, dict(num_key_value_heads=2, head_dim=12), "bfloat16", {}),
    "gpt2-f16": (GPT2Config, dict(), "float16", {}),
    "opt-f16": (OPTConfig, dict(ffn_dim=24), "float16", {}),
    "bloom-bf16": (BloomConfig, dict(n_head=6, hidden_size=36), "bfloat16", {}),
    # Three experts, one of them for a row; of many, with prompts that leave most without rows.
    "mixtral-bf16": (MixtralConfig, dict(num_key_value_heads=2, head_dim=8, num_local_experts=3,
                                         num_experts_per_tok=1, sliding_window=50), "bfloat16", {}),
    "qwen2-moe-bf16": (Qwen2MoeConfig, dict(num_key_value_heads=2, num_hidden_layers=3, num_experts=5,
                                            num_experts_per_tok=3, moe_intermediate_size=9, mlp_only_layers=[1],
                                            shared_expert_intermediate_size=40), "bfloat16", {}),
    "qwen3-moe-f16": (Qwen3MoeConfig, dict(num_key_value_heads=2, head_dim=12, num_experts=16, num_experts_per_tok=3,
                                           moe_intermediate_size=7, norm_topk_prob=True, decoder_sparse_step=2),
                      "float16", {}),
    "olmoe-bf16": (OlmoeConfig, dict(num_key_value_heads=2, num_experts=4, num_experts_per_tok=2), "bfloat16", {}),
    "granitemoe-bf16": (GraniteMoeConfig, dict(num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2,
                                               embedding_multiplier=12.0, residual_multiplier=0.22,
                                               attention_multiplier=0.2, logits_scaling=8.0), "bfloat16", {}),
    "granitemoeshared-f32": (GraniteMoeSharedConfig, dict(num_key_value_heads=1, num_local_experts=3,
                                                          num_experts_per_tok=3, intermediate_size=15,
                                                          shared_intermediate_size=20), "float32", {}),
    # Latent vectors: of heads of which a part turns, in groups of experts, with the scales of YaRN.
    "deepseek-v2-bf16": (DeepseekV2Config, dict(
        num_hidden_layers=3, kv_lora_rank=20, q_lora_rank=None, qk_rope_head_dim=6, qk_nope_head_dim=10, v_head_dim=7,
        n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=9, n_shared_experts=2, n_group=3, topk_group=2,
        topk_method="group_limited_greedy", first_k_dense_replace=1, routed_scaling_factor=2.0, rms_norm_eps=1e-5),
        "bfloat16", {}),
    "deepseek-v3-bf16": (DeepseekV3Config, dict(
        num_hidden_layers=3, num_key_value_heads=4, kv_lora_rank=17, q_lora_rank=11, qk_rope_head_dim=4,
        qk_nope_head_dim=5, v_head_dim=12, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=9,
        n_shared_experts=1, n_group=4, topk_group=2, first_k_dense_replace=1, rope_parameters=dict(
            rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=60, beta_fast=32.0,
            beta_slow=1.0, mscale=0.7, mscale_all_dim=1.0)), "bfloat16", {"old_rope": "type"}),
    "gpt-oss-bf16": (GptOssConfig, dict(num_key_value_heads=2, head_dim=8, num_local_experts=3, num_experts_per_tok=2,
                                        sliding_window=20), "bfloat16", {}),
    "gpt-oss-mxfp4-bf16": (GptOssConfig, dict(num_key_value_heads=1, head_dim=6, num_local_experts=4,
                                              num_experts_per_tok=1, sliding_window=50, intermediate_size=64,
                                              attention_bias=False), "bfloat16", {"family": "gpt_oss_mxfp4"}),
    "llama-awq-f32": (LlamaConfig, PACKED_SIZES, "float32", {"form": "awq"}),
    "qwen2-gptq-f32": (Qwen2Config, PACKED_SIZES, "float32", {"form": "gptq"}),
    "qwen3-gptq-desc-act-f32": (Qwen3Config, dict(PACKED_SIZES, head_dim=8), "float32", {"form": "gptq_desc_act"}),
    "phi3-gptq-f32": (Phi3Config, dict(PACKED_SIZES, pad_token_id=0), "float32", {"form": "gptq"}),
    "llama-pack-quantized-f32": (LlamaConfig, PACKED_SIZES, "float32", {"form": "pack_quantized"}),
    "mistral-pack-quantized-int8-f32": (MistralConfig, PACKED_SIZES, "float32", {"form": "pack_quantized_int8"}),
    "llama-int-quantized-f32": (LlamaConfig, PACKED_SIZES, "float32", {"form": "int_quantized"}),
}
GPT2_BASE = dict(n_embd=32, n_layer=2, n_head=4, n_positions=512, vocab_size=53, bos_token_id=1, eos_token_id=2)
BLOOM_BASE = dict(n_layer=2, vocab_size=53, bos_token_id=1, eos_token_id=2)
BASES = {FalconConfig: FALCON_BASE, GPTNeoXConfig: NEOX_BASE, GPT2Config: GPT2_BASE, BloomConfig: BLOOM_BASE,
         OPTConfig: PLAIN_BASE}
EMBEDDINGS = ("embed_tokens", "word_embeddings", "embed_in", "wte", "wpe", "embed_positions")
SHARPENED = ("q_proj", "k_proj", "qkv_proj", "query_key_value", "c_attn")
AROUND_ZERO = ("gemma", "nemotron")  # types of models whose norms add 1 to their weights


def is_norm(name):
    parts = name.split(".")
    return parts[-1] == "weight" and ("norm" in name or parts[-2].startswith("ln_"))


def randomise(model, seed, dtype):
    """Fills every parameter, rounded to what the files will hold."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if is_norm(name):
            values = (0 if model.config.model_type.startswith(AROUND_ZERO) else 1) + 0.3 * noise
        elif name.endswith("bias"):
            values = 0.3 * noise
        elif any(part in name for part in EMBEDDINGS):
            values = noise
        else:
            spread = 2.0 if any(part in name for part in SHARPENED) else 1.0
            values = spread * noise / parameter.shape[-1] ** 0.5
        parameter.data = values.to(dtype).float()
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))


def write_model(directory, model, dtype, options):
    """Saves the model as transformers does, then rewrites the rope in the form of transformers 4 where asked."""
    model.to(dtype).save_pretrained(directory, max_shard_size=options.get("max_shard_size", "5GB"))
    model.float()
    if "old_rope" in options:
        path = directory / "config.json"
        config = json.loads(path.read_text())
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        rope[options["old_rope"]] = rope.pop("rope_type")
        config["rope_scaling"] = rope
        config["torch_dtype"] = config.pop("dtype")
        path.write_text(json.dumps(config, indent=2) + "\n")


def run_prompt(model, prompt):
    """Logits of the first and last position, the greedy tokens, and the smallest gap of a greedy choice."""
    ids = list(prompt)
    greedy = []
    gap = float("inf")
    first = last = None
    with torch.no_grad():
        for _ in range(GREEDY_TOKENS):
            logits = model(torch.tensor([ids]), use_cache=False).logits[0].float()
            if first is None:
                first, last = logits[0].tolist(), logits[-1].tolist()
            top = torch.topk(logits[-1], 2)
            gap = min(gap, float((top.values[0] - top.values[1]) / logits[-1].abs().max()))
            greedy.append(int(top.indices[0]))
            ids.append(greedy[-1])
    rounded = lambda values: [float(f"{value:.7g}") for value in values]
    return {"ids": list(prompt), "first_logits": rounded(first), "last_logits": rounded(last), "greedy": greedy}, gap


def reference_attention(config):
    """Eager attention, whose sums are plain; but transformers 5's eager Falcon adds ALiBi twice, SDPA once."""
    return "sdpa" if getattr(config, "alibi", False) else "eager"


def frequencies(model):
    """Of the rope, for short sequences; none with ALiBi."""
    if getattr(model.config, "alibi", False):
        return []
    rope = getattr(model.base_model, "rotary_emb", None)
    if rope is None:
        return []
    name = "original_inv_freq" if hasattr(rope, "original_inv_freq") else "full_attention_original_inv_freq"
    return getattr(rope, name).float().tolist()


def make(name, seed):
    config_class, fields, dtype_name, options = MODELS[name]
    dtype = getattr(torch, dtype_name)
    directory = GOLDENS / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)

    config = config_class(**{**BASES.get(config_class, BASE), **fields})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomise(model, seed, dtype)
    prepare(options.get("family"), model)
    write_model(directory, model, dtype, options)

    write_packed = pack(directory, options["form"]) if "form" in options else None

    # What the files say is the reference, not the model that wrote them.
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32,
                                                 attn_implementation=reference_attention(config),
                                                 experts_implementation="eager").eval()
    rewrite(options.get("family"), directory)
    if write_packed:
        write_packed()
    generator = torch.Generator().manual_seed(seed + 1)
    prompts = []
    for length in PROMPT_LENGTHS:
        ids = torch.randint(0, config.vocab_size, (length,), generator=generator).tolist()
        result, gap = run_prompt(model, ids)
        if gap < MIN_GREEDY_GAP:
            return f"prompt of {length} tokens: greedy gap {gap:.1e}"
        prompts.append(result)
    golden = {
        "made_by": "tools/make_goldens.py",
        "seed": seed,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "file_dtype": dtype_name,
        "inverse_frequencies": [float(f"{f:.9g}") for f in frequencies(model)],
        "prompts": prompts,
    }
    (directory / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models to write; all by default")
    transformers.utils.logging.disable_progress_bar()
    names = parser.parse_args().names or list(MODELS)
    for name in names:
        if name not in MODELS:
            sys.exit(f"unknown model {name}; known: {', '.join(MODELS)}")
        first_seed = 100 * (1 + list(MODELS).index(name))
        for seed in range(first_seed, first_seed + 100):
            refusal = make(name, seed)
            if refusal is None:
                size = sum(f.stat().st_size for f in (GOLDENS / name).iterdir())
                print(f"{name}: seed {seed}, {size / 1000:.0f} kB")
                break
            print(f"{name}: seed {seed} refused, {refusal}")
        else:
            sys.exit(f"{name}: no seed has clear greedy choices")


if __name__ == "__main__":
    main()
