"""Times a prompt phase of a Llama-like model in plain PyTorch over several GPUs, for comparison with `runahead bench`.

    torchrun --nproc-per-node 4 bench/peers/torch_parallel.py MODEL_DIR --mode tp     --contexts 4096,16384
    torchrun --nproc-per-node 4 bench/peers/torch_parallel.py MODEL_DIR --mode zigzag --contexts 4096,16384

tp: every matrix is cut over the GPUs, with two all-reduces of the activations in each layer. zigzag: every GPU has all
weights and the pieces r and 2p-1-r of the prompt cut in 2p, with an all-gather of keys and values in each layer. Without
torchrun one GPU works alone. MODEL_DIR needs its config.json only: the weights are random. --check compares the logits
with those of one GPU; --device cpu runs over gloo, for trying the script.
"""

import json
import os
import pathlib
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from results import DTYPES, Results, common_options


class Config:
    def __init__(self, folder):
        raw = json.loads(pathlib.Path(folder, "config.json").read_text(encoding="utf-8"))
        if raw.get("model_type") not in ("llama", "mistral"):
            raise SystemExit(f"{folder}: model_type is {raw.get('model_type')!r}, but only llama and mistral are written here")
        self.hidden = raw["hidden_size"]
        self.layers = raw["num_hidden_layers"]
        self.heads = raw["num_attention_heads"]
        self.kv_heads = raw.get("num_key_value_heads", self.heads)
        self.head_dim = raw.get("head_dim") or self.hidden // self.heads
        self.ffn = raw["intermediate_size"]
        self.vocab = raw["vocab_size"]
        self.theta = raw.get("rope_theta", 10000.0)
        self.eps = raw.get("rms_norm_eps", 1e-5)


def rms_norm(x, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotate(x, cosines, sines):
    """x: [tokens, heads, head_dim]; the halves of a head rotate against each other."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1).to(x.dtype)


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def attend(q, k, v):
    """q: [m, heads, d], the last m positions of k, v: [n, kv_heads, d]."""
    m, n = q.shape[0], k.shape[0]
    q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    if m == n:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=causal_lower_right(m, n), enable_gqa=grouped)
    return out.squeeze(0).transpose(0, 1).flatten(1)


class Model:
    """A rank's part of the weights. `mode` is tp or zigzag; with one rank both are the whole model."""

    def __init__(self, config, mode, rank, ranks, device, dtype):
        self.config, self.mode, self.rank, self.ranks, self.device = config, mode, rank, ranks, device
        self.split = ranks if mode == "tp" else 1
        for name, size in (("heads", config.heads), ("kv heads", config.kv_heads), ("ffn", config.ffn)):
            if size % self.split:
                raise SystemExit(f"{size} {name} do not fit {ranks} ranks")
        generator = torch.Generator(device=device).manual_seed(1)
        part = rank if mode == "tp" else 0

        def draw(rows, columns):
            weights = torch.randn(rows, columns, generator=generator, device=device, dtype=torch.float32)
            return (weights / columns**0.5).to(dtype)

        def rows_of(weights):
            return weights.chunk(self.split)[part].contiguous()

        self.embedding = draw(config.vocab, config.hidden)
        self.layers = []
        for _ in range(config.layers):
            qkv = [rows_of(draw(heads * config.head_dim, config.hidden))
                   for heads in (config.heads, config.kv_heads, config.kv_heads)]
            out = draw(config.hidden, config.heads * config.head_dim).chunk(self.split, dim=1)[part].contiguous()
            gate_up = torch.cat([rows_of(draw(config.ffn, config.hidden)) for _ in range(2)])
            down = draw(config.hidden, config.ffn).chunk(self.split, dim=1)[part].contiguous()
            self.layers.append((torch.cat(qkv), out, gate_up, down))
        self.head = draw(config.vocab, config.hidden)

    def angles(self, positions):
        d = self.config.head_dim
        frequencies = self.config.theta ** (-torch.arange(0, d, 2, device=self.device).float() / d)
        angles = positions.float().unsqueeze(1) * frequencies
        return angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)

    def pieces(self, tokens):
        """The ranges of the prompt that this rank owns."""
        if self.mode == "tp" or self.ranks == 1:
            return [(0, tokens)]
        cuts = [i * tokens // (2 * self.ranks) for i in range(2 * self.ranks + 1)]
        return [(cuts[i], cuts[i + 1]) for i in (self.rank, 2 * self.ranks - 1 - self.rank)]

    def gather(self, rows, tokens):
        """All ranks' rows of keys or values in the prompt's order. Needs pieces of equal length."""
        if self.mode == "tp" or self.ranks == 1:
            return rows
        gathered = rows.new_empty((self.ranks, 2, rows.shape[0] // 2, *rows.shape[1:]))
        dist.all_gather_into_tensor(gathered.view(-1, *rows.shape[1:]), rows.contiguous())
        return torch.cat((gathered[:, 0], gathered[:, 1].flip(0))).reshape(tokens, *rows.shape[1:])

    def reduce(self, x):
        if self.split > 1:
            dist.all_reduce(x)
        return x

    def forward(self, ids):
        """The logits of the last position, on the rank that has it; None on the others."""
        config, tokens = self.config, ids.shape[0]
        pieces = self.pieces(tokens)
        own = torch.cat([torch.arange(begin, end, device=self.device) for begin, end in pieces])
        cosines, sines = self.angles(own)
        heads, kv_heads, d = config.heads // self.split, config.kv_heads // self.split, config.head_dim
        x = self.embedding[ids[own]]
        for qkv_weights, out_weights, gate_up_weights, down_weights in self.layers:
            qkv = F.linear(rms_norm(x, config.eps), qkv_weights)
            q, k, v = qkv.split((heads * d, kv_heads * d, kv_heads * d), dim=1)
            q = rotate(q.unflatten(1, (heads, d)), cosines, sines)
            k = self.gather(rotate(k.unflatten(1, (kv_heads, d)), cosines, sines), tokens)
            v = self.gather(v.unflatten(1, (kv_heads, d)), tokens)
            attended, first = [], 0
            for begin, end in pieces:
                attended.append(attend(q[first:first + end - begin], k[:end], v[:end]))
                first += end - begin
            x = x + self.reduce(F.linear(torch.cat(attended), out_weights))
            x = x + self.reduce(F.linear(swiglu(F.linear(rms_norm(x, config.eps), gate_up_weights)), down_weights))
        last = (own == tokens - 1).nonzero()
        if self.mode != "tp" and last.numel() == 0:
            return None
        return F.linear(rms_norm(x[last[0, 0]], config.eps), self.head)


def main():
    parser = common_options(__doc__)
    parser.add_argument("--mode", default="zigzag", choices=("tp", "zigzag"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out of the small operations")
    parser.add_argument("--check", action="store_true", help="compare the logits with those of one rank")
    options = parser.parse_args()

    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    gpu = options.device == "cuda"
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if ranks > 1:
        dist.init_process_group("nccl" if gpu else "gloo", **({"device_id": device} if gpu else {}))
    if not options.no_compile:
        globals().update({f.__name__: torch.compile(f, dynamic=True) for f in (rms_norm, rotate, swiglu)})

    def settle():
        if gpu:
            torch.cuda.synchronize()
        if ranks > 1:
            dist.barrier()

    config, dtype = Config(options.model), DTYPES[options.dtype]
    name = torch.cuda.get_device_name(device) if gpu else "cpu"
    with torch.inference_mode():
        model = Model(config, options.mode, rank, ranks, device, dtype)
        results = Results(f"torch {options.mode}", options.model, options.dtype, name, ranks,
                          options.json if rank == 0 else None)
        for context in map(int, options.contexts.split(",")):
            if options.mode == "zigzag" and context % (2 * ranks):
                raise SystemExit(f"{context} tokens cannot be cut into {2 * ranks} equal pieces")
            ids = torch.randint(config.vocab, (context,), generator=torch.Generator().manual_seed(2)).to(device)
            if options.check:
                check(model, config, ids, device, dtype)
            times = []
            for repeat in range(options.repeats + 2):
                settle()
                begin = time.perf_counter()
                logits = model.forward(ids)
                if logits is not None:
                    logits.argmax().item()
                if gpu:
                    torch.cuda.synchronize()
                ms = torch.tensor((time.perf_counter() - begin) * 1e3, device=device)
                if ranks > 1:
                    dist.all_reduce(ms, op=dist.ReduceOp.MAX)
                if repeat >= 2:
                    times.append(ms.item())
            if rank == 0:
                results.add(context, times)
    if ranks > 1:
        dist.destroy_process_group()


def check(model, config, ids, device, dtype):
    logits = model.forward(ids)
    if logits is None:
        return
    expected = Model(config, "tp", 0, 1, device, dtype).forward(ids)
    difference = ((logits - expected).abs().max() / expected.abs().max()).item()
    print(f"{ids.shape[0]} tokens: logits differ from one rank's by {difference:.1e} of the largest", flush=True)


if __name__ == "__main__":
    main()
