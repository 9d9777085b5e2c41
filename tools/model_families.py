"""Random configurations of the families that Runahead loads, for compare_models.py."""

import dataclasses
import json
import pathlib
from typing import Callable

from safetensors.torch import load_file, save_file
from transformers import AutoConfig


def base(rng, pair=True):
    """Sizes that fit together, odd where nothing stands against it."""
    groups, kv_heads = rng.choice(((1, 1), (2, 1), (1, 3), (2, 2), (5, 1), (3, 2)))
    head_dim = rng.choice((4, 6, 8, 10, 16))
    return dict(hidden_size=groups * kv_heads * head_dim, num_attention_heads=groups * kv_heads,
                num_key_value_heads=kv_heads, intermediate_size=rng.choice((17, 24, 31, 48)),
                num_hidden_layers=rng.choice((2, 3, 5)), vocab_size=rng.choice((37, 53, 64, 101)),
                max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
                tie_word_embeddings=rng.random() < 0.5)  # fmt: skip


def rope(rng, head_dim):
    """Any rope but those whose angles depend on a sequence's length, which tests of their own cover."""
    kind = rng.choice(("default", "linear", "llama3", "yarn", "longrope"))
    common = dict(rope_type=kind, rope_theta=float(rng.choice((1000, 10000, 500000))))
    if kind == "linear":
        return dict(common, factor=rng.choice((2.0, 3.5)))
    if kind == "llama3":
        return dict(common, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    if kind == "yarn":
        more = rng.choice(({}, dict(mscale=0.7, mscale_all_dim=1.0), dict(attention_factor=1.3), dict(truncate=False)))
        return dict(common, factor=4.0, original_max_position_embeddings=128, **more)
    if kind == "longrope":
        half = head_dim // 2
        return dict(common, original_max_position_embeddings=100, factor=rng.choice((2.0, 5.12)),
                    short_factor=[1 + 0.1 * i for i in range(half)], long_factor=[1 + i for i in range(half)])  # fmt: skip
    return common


def head_dim_of(fields):
    return fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]


def llama(rng, **more):
    fields = dict(base(rng), **more)
    fields["rope_parameters"] = rope(rng, head_dim_of(fields))
    return fields


def own_head_dim(rng, fields):
    fields["head_dim"] = rng.choice((4, 8, 12, 24))
    if "rope_parameters" in fields:
        fields["rope_parameters"] = rope(rng, fields["head_dim"])
    return fields


def partial(rng, fields):
    """A rope on a part of each head, of an even number of features."""
    head_dim = head_dim_of(fields)
    rotary = rng.choice([n for n in range(2, head_dim + 1, 2)])
    fields["rope_parameters"] = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=rotary / head_dim)
    return fields


def chance(rng):
    return rng.random() < 0.5


def window(rng):
    return rng.choice((5, 33, 200))


def layer_ropes(rng, fields):
    return dict(full_attention=rope(rng, head_dim_of(fields)),
                sliding_attention=dict(rope_type="default", rope_theta=3000.0))  # fmt: skip


def gemma3(rng):
    fields = dict(base(rng), sliding_window=window(rng), sliding_window_pattern=rng.choice((2, 3)),
                  query_pre_attn_scalar=rng.choice((8, 24)))  # fmt: skip
    fields["head_dim"] = rng.choice((4, 8, 12, 24))
    fields["rope_parameters"] = layer_ropes(rng, fields)
    if chance(rng):
        fields["final_logit_softcapping"] = 5.0
    return fields


def granite(rng):
    return llama(rng, embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=0.15,
                 logits_scaling=rng.choice((3.0, 8.0)), attention_bias=chance(rng), mlp_bias=chance(rng))  # fmt: skip


def smollm3(rng):
    fields = llama(rng, no_rope_layer_interval=rng.choice((2, 3, 4)))
    if chance(rng):
        fields["no_rope_layers"] = [rng.choice((0, 1)) for _ in range(fields["num_hidden_layers"])]
    if chance(rng):
        fields.update(use_sliding_window=True, sliding_window=window(rng))
    return fields


def stablelm(rng):
    return partial(rng, dict(base(rng), use_qkv_bias=chance(rng), qk_layernorm=chance(rng),
                             use_parallel_residual=chance(rng)))  # fmt: skip


def starcoder2(rng):
    return llama(rng, use_bias=chance(rng), sliding_window=rng.choice((None, 33)))


def cohere2(rng):
    return llama(rng, sliding_window=window(rng), sliding_window_pattern=rng.choice((2, 3)), logit_scale=0.3)


def exaone4(rng):
    fields = llama(rng, sliding_window=window(rng), sliding_window_pattern=rng.choice((2, 3)))
    if chance(rng):
        fields.update(sliding_window=None, layer_types=["full_attention"] * fields["num_hidden_layers"])
    return fields


def ministral3(rng):
    fields = own_head_dim(rng, base(rng))
    fields["rope_parameters"] = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=60,
                                     beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
                                     llama_4_scaling_beta=0.3)  # fmt: skip
    return fields


def olmo3(rng):
    fields = dict(base(rng), sliding_window=window(rng), attention_bias=chance(rng))
    fields["rope_parameters"] = layer_ropes(rng, fields)
    return fields


def learned(rng, **names):
    fields = base(rng)
    heads = fields["num_attention_heads"]
    common = dict(vocab_size=fields["vocab_size"], bos_token_id=1, eos_token_id=2, pad_token_id=0)
    width, layers = fields["hidden_size"], fields["num_hidden_layers"]
    if "n_embd" in names:
        return dict(common, n_embd=width, n_head=heads, n_layer=layers, n_positions=512,
                    n_inner=rng.choice((None, 31)), scale_attn_weights=chance(rng))  # fmt: skip
    if "n_layer" in names:
        return dict(common, hidden_size=width, n_head=heads, n_layer=layers)
    return dict(common, hidden_size=width, num_attention_heads=heads, num_hidden_layers=layers, ffn_dim=31,
                max_position_embeddings=512, enable_bias=chance(rng))  # fmt: skip


def mixture(rng, fields, experts="num_experts"):
    """Experts of odd counts; with few tokens most of them get none."""
    count = rng.choice((1, 2, 3, 5, 8))
    fields[experts] = count
    fields["num_experts_per_tok"] = rng.choice([n for n in (1, 2, 3, 8) if n <= count])
    return fields


def qwen_moe(rng, fields):
    mixture(rng, fields)
    fields.update(moe_intermediate_size=rng.choice((7, 16, 33)), norm_topk_prob=chance(rng))
    if chance(rng):
        fields["decoder_sparse_step"] = 2
    elif chance(rng):
        fields["mlp_only_layers"] = [rng.randrange(fields["num_hidden_layers"])]
    return fields


def qwen2_moe(rng):
    fields = qwen_moe(rng, llama(rng, qkv_bias=chance(rng), shared_expert_intermediate_size=rng.choice((5, 24, 70))))
    if chance(rng):
        fields.update(use_sliding_window=True, sliding_window=window(rng), max_window_layers=2)
    return fields


def qwen3_moe(rng):
    fields = qwen_moe(rng, own_head_dim(rng, llama(rng, attention_bias=chance(rng))))
    if chance(rng):
        fields.update(use_sliding_window=True, sliding_window=window(rng))
    return fields


def deepseek(rng, groups_of):
    """DeepSeek-V2 or V3; groups of at least `groups_of` experts."""
    fields = base(rng)
    fields["num_key_value_heads"] = fields["num_attention_heads"]
    turning = rng.choice((2, 4, 6, 16))
    groups = rng.choice((1, 2, 3))
    experts = groups * rng.choice([n for n in (1, 2, 3, 5) if n >= groups_of])
    chosen_groups = rng.randint(1, groups)
    most = experts // groups * chosen_groups
    fields.update(kv_lora_rank=rng.choice((3, 8, 20, 48)), q_lora_rank=rng.choice((None, 5, 24)),
                  qk_rope_head_dim=turning, qk_nope_head_dim=rng.choice((1, 4, 10)), v_head_dim=rng.choice((2, 7, 16)),
                  n_routed_experts=experts, num_experts_per_tok=rng.choice([n for n in (1, 2, 3, 8) if n <= most]),
                  moe_intermediate_size=rng.choice((7, 16, 33)), n_shared_experts=rng.choice((1, 2)), n_group=groups,
                  topk_group=chosen_groups, first_k_dense_replace=rng.choice((0, 1, 9)),
                  routed_scaling_factor=rng.choice((1.0, 2.5)), norm_topk_prob=chance(rng),
                  attention_bias=chance(rng), rms_norm_eps=1e-5, rope_parameters=rope(rng, turning))  # fmt: skip
    return fields


def deepseek_v2(rng):
    method = rng.choice(("greedy", "group_limited_greedy"))
    # transformers turns heads of V2 as complex numbers, which must lie at even places.
    return dict(deepseek(rng, 1), topk_method=method, mlp_bias=chance(rng), kv_lora_rank=rng.choice((4, 20, 48)),
                q_lora_rank=rng.choice((None, 6, 24)), qk_nope_head_dim=rng.choice((2, 4, 10)))  # fmt: skip


def gpt_oss(rng, quantised=False):
    """Without rope_parameters YaRN as transformers has it; quantised columns are whole blocks of 32."""
    fields = mixture(rng, dict(own_head_dim(rng, base(rng)), attention_bias=chance(rng)), "num_local_experts")
    fields.update(sliding_window=window(rng), swiglu_limit=rng.choice((7.0, 1.5)))
    if quantised:
        fields.update(hidden_size=rng.choice((32, 96)), intermediate_size=rng.choice((32, 64)))
    if chance(rng):
        fields["rope_parameters"] = rope(rng, fields["head_dim"])
    return fields


@dataclasses.dataclass
class Family:
    model_type: str  # transformers'
    draw: Callable   # a generator of random numbers to the fields of a configuration

    def with_text(self, fields):
        """The configuration of a folder with more than text, whose text part has these fields."""
        text_type = {"gemma3": "gemma3_text", "mistral3": "mistral"}[self.model_type]
        vision = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                      patch_size=14, head_dim=4)  # fmt: skip
        tied = fields.get("tie_word_embeddings", True)
        return AutoConfig.for_model(self.model_type, text_config=dict(fields, model_type=text_type), vision_config=vision,
                                    tie_word_embeddings=tied)  # fmt: skip


FAMILIES = {
    "llama": Family("llama", lambda rng: llama(rng, attention_bias=chance(rng), mlp_bias=chance(rng))),
    "mistral": Family("mistral", lambda rng: own_head_dim(rng, llama(rng, sliding_window=rng.choice((None, 33))))),
    "qwen2": Family("qwen2", llama),
    "qwen3": Family("qwen3", lambda rng: own_head_dim(rng, llama(rng, attention_bias=chance(rng)))),
    "gemma": Family("gemma", lambda rng: own_head_dim(rng, llama(rng))),
    "gemma3_text": Family("gemma3_text", gemma3),
    "gemma3": Family("gemma3", gemma3),
    "olmo2": Family("olmo2", lambda rng: llama(rng, attention_bias=chance(rng))),
    "olmo3": Family("olmo3", olmo3),
    "granite": Family("granite", granite),
    "smollm3": Family("smollm3", smollm3),
    "stablelm": Family("stablelm", stablelm),
    "starcoder2": Family("starcoder2", starcoder2),
    "phi": Family("phi", lambda rng: partial(rng, dict(base(rng), qk_layernorm=chance(rng)))),
    "cohere": Family("cohere", lambda rng: llama(rng, use_qk_norm=chance(rng), attention_bias=chance(rng),
                                                 logit_scale=0.3)),  # fmt: skip
    "cohere2": Family("cohere2", cohere2),
    "glm": Family("glm", lambda rng: partial(rng, dict(own_head_dim(rng, base(rng)), attention_bias=chance(rng)))),
    "glm4": Family("glm4", lambda rng: partial(rng, dict(own_head_dim(rng, base(rng)), attention_bias=chance(rng)))),
    "exaone4": Family("exaone4", exaone4),
    "ministral3": Family("ministral3", ministral3),
    "mistral3": Family("mistral3", lambda rng: own_head_dim(rng, llama(rng))),
    "nemotron": Family("nemotron", lambda rng: partial(rng, dict(base(rng), attention_bias=chance(rng),
                                                                 mlp_bias=chance(rng)))),  # fmt: skip
    "internlm2": Family("llama", lambda rng: llama(rng, tie_word_embeddings=False)),
    "baichuan": Family("llama", lambda rng: dict(base(rng), num_key_value_heads=None, tie_word_embeddings=False)),
    "internlm3": Family("internlm3", lambda rng: own_head_dim(rng, llama(rng))),
    "gpt2": Family("gpt2", lambda rng: learned(rng, n_embd=True)),
    "opt": Family("opt", learned),
    "bloom": Family("bloom", lambda rng: learned(rng, n_layer=True)),
    "mixtral": Family("mixtral", lambda rng: mixture(rng, own_head_dim(rng, llama(
        rng, sliding_window=rng.choice((None, 33)))), "num_local_experts")),
    "qwen2_moe": Family("qwen2_moe", qwen2_moe),
    "qwen3_moe": Family("qwen3_moe", qwen3_moe),
    "olmoe": Family("olmoe", lambda rng: mixture(rng, llama(rng, attention_bias=chance(rng),
                                                            norm_topk_prob=chance(rng)))),  # fmt: skip
    "deepseek_v2": Family("deepseek_v2", deepseek_v2),
    "deepseek_v3": Family("deepseek_v3", lambda rng: dict(deepseek(rng, 2), rope_interleave=chance(rng))),
    "gpt_oss": Family("gpt_oss", gpt_oss),
    "gpt_oss_mxfp4": Family("gpt_oss", lambda rng: gpt_oss(rng, quantised=True)),
    "granitemoe": Family("granitemoe", lambda rng: mixture(rng, granite(rng), "num_local_experts")),
    "granitemoeshared": Family("granitemoeshared", lambda rng: dict(
        mixture(rng, granite(rng), "num_local_experts"), shared_intermediate_size=rng.choice((0, 5, 40)))),
}


def rewrite_internlm2(tensors, config):
    """Llama's tensors under InternLM 2's names, with q, k and v by group of heads."""
    names = {"self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3",
             "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm",
             "post_attention_layernorm": "ffn_norm", "embed_tokens": "tok_embeddings", "lm_head": "output"}  # fmt: skip
    renamed = {}
    for name, tensor in tensors.items():
        if "q_proj" in name:
            kv_heads = config["num_key_value_heads"]
            groups = [tensors[name.replace("q_proj", f"{part}_proj")].unflatten(0, (kv_heads, -1)) for part in "qkv"]
            fused = groups[0].new_tensor([])
            import torch
            fused = torch.cat(groups, dim=1).flatten(0, 1).contiguous()
            renamed[name.replace("self_attn.q_proj", "attention.wqkv")] = fused
        elif "k_proj" not in name and "v_proj" not in name:
            for old, new in names.items():
                name = name.replace(old, new)
            renamed[name] = tensor
    config.update(architectures=["InternLM2ForCausalLM"], model_type="internlm2", bias=False)
    return renamed


def rewrite_baichuan(tensors, config):
    """Llama's tensors under Baichuan 2's names, with q, k and v in one, and a head whose rows are of any length."""
    import torch
    renamed = {}
    for name, tensor in tensors.items():
        if "q_proj" in name:
            parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            renamed[name.replace("q_proj", "W_pack")] = torch.cat(parts).contiguous()
        elif "k_proj" not in name and "v_proj" not in name:
            renamed[name] = tensor
    lengths = torch.linspace(0.3, 3, config["vocab_size"])
    renamed["lm_head.weight"] = tensors["lm_head.weight"] * lengths[:, None]
    config.update(architectures=["BaichuanForCausalLM"], model_type="baichuan")
    return renamed


FP4_VALUES = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)


def quantise_mxfp4(weights):
    """[experts, in, out] to blocks and scales of MXFP4 of [experts, out, in], and the numbers that these stand for."""
    import torch
    values = torch.tensor(FP4_VALUES)
    blocks = weights.transpose(1, 2).contiguous().unflatten(-1, (-1, 32))
    exponents = torch.floor(torch.log2(blocks.abs().amax(-1).clamp(min=1e-6) / 4)).clamp(min=-100)
    scaled = blocks / torch.exp2(exponents).unsqueeze(-1)
    codes = (scaled.unsqueeze(-1) - values).abs().argmin(-1)
    numbers = (values[codes] * torch.exp2(exponents).unsqueeze(-1)).flatten(-2).transpose(1, 2).contiguous()
    packed = (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8)
    return packed, (exponents + 127).to(torch.uint8), numbers


def rewrite_gpt_oss_mxfp4(tensors, config):
    """Experts as gpt-oss comes, whose numbers `prepare` has rounded to these."""
    packed = {}
    for name, tensor in tensors.items():
        if name.endswith(("gate_up_proj", "down_proj")):
            packed[name + "_blocks"], packed[name + "_scales"], _ = quantise_mxfp4(tensor)
        else:
            packed[name] = tensor
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    return packed


def prepare(family, model):
    """Gives a random model what its family's models have."""
    if family == "gpt_oss_mxfp4":
        for name, parameter in model.named_parameters():
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                parameter.data = quantise_mxfp4(parameter.data)[2]
    if family == "baichuan":
        import torch
        model.lm_head.weight.data = torch.nn.functional.normalize(model.lm_head.weight.data)


def rewrite(family, directory):
    """Makes a saved model one of a family that transformers does not have."""
    rewriters = {"internlm2": rewrite_internlm2, "baichuan": rewrite_baichuan,
                 "gpt_oss_mxfp4": rewrite_gpt_oss_mxfp4}  # fmt: skip
    if family not in rewriters:
        return
    directory = pathlib.Path(directory)
    config = json.loads((directory / "config.json").read_text())
    tensors = rewriters[family](load_file(directory / "model.safetensors"), config)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
