"""The demo model for training: a Llama written over flat [tokens, width] rows, and its Hugging Face folder.

Every compiled function sees the same shapes at every row length, so that a change of length compiles nothing anew; only
attention, which is not compiled, knows where rows begin.
"""

import dataclasses
import json
import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file


@dataclasses.dataclass(frozen=True)
class Shape:
    vocabulary: int = 1536
    layers: int = 6
    width: int = 256
    heads: int = 8
    kv_heads: int = 2
    inner: int = 704
    rope_theta: float = 500000.0
    context: int = 8192
    eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


def weight_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes as in the Hugging Face folder; the head is tied to the embedding."""
    kv_width = shape.kv_heads * shape.head_dim
    shapes = {"model.embed_tokens.weight": (shape.vocabulary, shape.width), "model.norm.weight": (shape.width,)}
    for i in range(shape.layers):
        layer = f"model.layers.{i}."
        shapes |= {layer + "input_layernorm.weight": (shape.width,),
                   layer + "self_attn.q_proj.weight": (shape.width, shape.width),
                   layer + "self_attn.k_proj.weight": (kv_width, shape.width),
                   layer + "self_attn.v_proj.weight": (kv_width, shape.width),
                   layer + "self_attn.o_proj.weight": (shape.width, shape.width),
                   layer + "post_attention_layernorm.weight": (shape.width,),
                   layer + "mlp.gate_proj.weight": (shape.inner, shape.width),
                   layer + "mlp.up_proj.weight": (shape.inner, shape.width),
                   layer + "mlp.down_proj.weight": (shape.width, shape.inner)}
    return shapes


def new_weights(shape: Shape, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, size in weight_shapes(shape).items():
        if len(size) == 1:
            weights[name] = torch.ones(size)
            continue
        writes_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        spread = 0.02 / math.sqrt(2 * shape.layers) if writes_residual else 0.02
        if "embed" not in name and not writes_residual:
            spread = 1 / math.sqrt(shape.width) * 0.8
        weights[name] = torch.randn(size, generator=generator) * spread
    return weights


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def linear(x, weight):
    return F.linear(x.to(torch.bfloat16), weight.to(torch.bfloat16))


def rotate(x, cos, sin):
    """x [tokens, heads, head_dim]; halves are rotated, as in the Hugging Face layout."""
    first, second = x.float().chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(torch.bfloat16)


def attention_inputs(x, norm, q, k, v, cos, sin, head_dim, eps):
    h = rms_norm(x, norm, eps)
    q, k, v = (linear(h, w).view(x.shape[0], -1, head_dim) for w in (q, k, v))
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def after_attention(x, attention, o, norm, gate, up, down, eps):
    x = x + linear(attention, o).float()
    h = rms_norm(x, norm, eps)
    return x + linear(F.silu(linear(h, gate)) * linear(h, up), down).float()


def loss_and_hits(x, norm, embedding, targets, kinds, answer_weight, eps):
    """Mean loss over all real targets plus answer_weight times that over answers; and how many answer tokens are right."""
    logits = linear(rms_norm(x, norm, eps), embedding).float()
    losses = F.cross_entropy(logits, targets, reduction="none")
    real, answer, counted = kinds > 0, kinds >= 2, kinds == 2
    loss = (losses * real).sum() / real.sum() + answer_weight * (losses * answer).sum() / answer.sum().clamp(min=1)
    return loss, ((logits.argmax(-1) == targets) & counted).sum(), counted.sum()


class Trainee:
    def __init__(self, shape: Shape, weights: dict[str, torch.Tensor], device: str, compiled: bool):
        self.shape, self.device = shape, device
        self.weights = {name: torch.nn.Parameter(w.float().to(device)) for name, w in weights.items()}
        wrap = torch.compile if compiled else (lambda function: function)
        self.attention_inputs, self.after_attention = wrap(attention_inputs), wrap(after_attention)
        self.loss_and_hits = wrap(loss_and_hits)
        self.rope_cache = {}

    def rope(self, rows: int, length: int):
        """cos and sin [rows * length, head_dim / 2]."""
        if (rows, length) not in self.rope_cache:
            half = self.shape.head_dim // 2
            frequencies = self.shape.rope_theta ** (-torch.arange(half, device=self.device) / half)
            angles = (torch.arange(length, device=self.device)[:, None] * frequencies).repeat(rows, 1)
            self.rope_cache[rows, length] = (angles.cos(), angles.sin())
        return self.rope_cache[rows, length]

    def hidden(self, tokens):
        """tokens [rows, length] -> what comes before the last norm, [rows * length, width]."""
        s, w = self.shape, self.weights
        rows, length = tokens.shape
        cos, sin = self.rope(rows, length)
        x = F.embedding(tokens.reshape(-1), w["model.embed_tokens.weight"])
        for i in range(s.layers):
            def at(name):
                return w[f"model.layers.{i}.{name}.weight"]
            q, k, v = self.attention_inputs(
                x, at("input_layernorm"), at("self_attn.q_proj"), at("self_attn.k_proj"), at("self_attn.v_proj"),
                cos, sin, s.head_dim, s.eps)
            q, k, v = (t.view(rows, length, -1, s.head_dim).transpose(1, 2) for t in (q, k, v))
            attention = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            attention = attention.transpose(1, 2).reshape(rows * length, s.width)
            x = self.after_attention(
                x, attention, at("self_attn.o_proj"), at("post_attention_layernorm"), at("mlp.gate_proj"),
                at("mlp.up_proj"), at("mlp.down_proj"), s.eps)
        return x

    def __call__(self, tokens, targets, kinds, answer_weight=0.5):
        return self.loss_and_hits(
            self.hidden(tokens), self.weights["model.norm.weight"], self.weights["model.embed_tokens.weight"],
            targets.reshape(-1), kinds.reshape(-1), answer_weight, self.shape.eps)


def save_folder(shape: Shape, weights: dict[str, torch.Tensor], folder: pathlib.Path, begin: int, end: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {name: w.detach().to("cpu", torch.bfloat16).contiguous() for name, w in weights.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
              "torch_dtype": "bfloat16", "vocab_size": shape.vocabulary, "hidden_size": shape.width,
              "intermediate_size": shape.inner, "num_hidden_layers": shape.layers,
              "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
              "head_dim": shape.head_dim, "hidden_act": "silu", "max_position_embeddings": shape.context,
              "rope_theta": shape.rope_theta, "rope_scaling": None, "rms_norm_eps": shape.eps,
              "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True,
              "initializer_range": 0.02, "use_cache": True, "bos_token_id": begin, "eos_token_id": end}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"bos_token_id": begin, "eos_token_id": end, "do_sample": False, "max_new_tokens": 16}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def load_weights(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
