#!/usr/bin/env python3
"""Writes tests/model/gguf/: tiny random models as GGUF files, with what others make of them.

    pip install torch transformers gguf sentencepiece tokenizers
    python3 tools/make_gguf_goldens.py

NAME.gguf is written by the package `gguf`, with queries and keys in the order of llama.cpp's converter. NAME.json has the logits and
greedy tokens of HF transformers with the weights that `gguf` dequantises from the file, and the ids that SentencePiece or tokenizers
give texts. blocks.bin and blocks.json hold random blocks of each type and what `gguf` dequantises them to.
"""
import io
import json
import pathlib

import gguf
import make_goldens
import numpy
import sentencepiece
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "model" / "gguf"
TEXTS = ["Every rank computes its own keys.", " two  spaces, 12345 and 3.14\n\n\tlines", "Grüße, 你好 🦊!", "<s>it's</s> WE'LL", ""]
QWEN2_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
# Types that `gguf` cannot quantise to: bytes of a block before and behind the half-precision scales, and how many scales.
RANDOM_BLOCKS = {Type.Q4_K: (0, 2, 140), Type.Q5_K: (0, 2, 172), Type.Q6_K: (208, 1, 0)}

BASE = dict(num_hidden_layers=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2)
MODELS = {
    "llama": (LlamaConfig, dict(BASE, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
                                num_key_value_heads=1, head_dim=32,
                                rope_parameters=dict(make_goldens.LLAMA3_ROPE, rope_theta=500000.0)),
              {"attn_q": Type.Q4_K, "attn_k": Type.Q5_K, "attn_v": Type.Q6_K, "attn_output": Type.Q8_0, "ffn_gate": Type.Q4_0,
               "ffn_up": Type.Q5_0, "ffn_down": Type.Q5_1, "token_embd": Type.Q6_K, "output": Type.Q4_1}),
    "qwen2": (Qwen2Config, dict(BASE, hidden_size=32, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2,
                                tie_word_embeddings=True), {None: Type.F16}),
    "qwen3": (Qwen3Config, dict(BASE, hidden_size=32, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                                vocab_size=53), {None: Type.BF16}),
}


def random_blocks(kind, blocks, rng):
    before, scales, behind = RANDOM_BLOCKS[kind]
    halves = rng.uniform(0.0005, 0.002, (blocks, scales)).astype(numpy.float16)
    if scales == 2:
        halves[:, 1] *= 8  # the minima shift the mean to about 0
    parts = [rng.integers(0, 256, (blocks, before), numpy.uint8), halves.view(numpy.uint8), rng.integers(0, 256, (blocks, behind), numpy.uint8)]
    return numpy.concatenate(parts, axis=1)


def stored(values, kind, rng):
    """The bytes of `values`, or random ones of its shape, and the numbers that they are."""
    if kind in RANDOM_BLOCKS:
        rows = random_blocks(kind, values.size // 256, rng).reshape(values.shape[0], -1)
    else:
        rows = gguf.quants.quantize(values, kind)
    return rows, gguf.quants.dequantize(rows, kind).astype(numpy.float32).reshape(values.shape)


def paired(weights, heads):
    """Halves of a head become pairs of neighbours."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weights.shape)


def unpaired(weights, heads):
    return weights.reshape(heads, weights.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(weights.shape)


def name_in_file(name):
    for known, own in (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")):
        if name.startswith(known):
            return name.replace(known, own)
    _, _, layer, rest = name.split(".", 3)
    known, ending = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[known]}.{ending}"


def write_pieces(writer):
    """A SentencePiece model trained on our own documents."""
    text = (FOLDER.parent.parent.parent / "docs" / "ARCHITECTURE.md").read_text()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(text.splitlines()), model_writer=model, vocab_size=384,
                                             model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                                             remove_extra_whitespaces=False, character_coverage=0.99, minloglevel=2)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(pieces.vocab_size())
    kinds = [2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 1 for i in ids]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(i) for i in ids])
    writer.add_token_scores([pieces.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(kinds), [[1] + pieces.encode(text) for text in TEXTS if "<s>" not in text]


def write_merges(writer):
    """A byte-level BPE model trained on the same, in Qwen2's words."""
    text = (FOLDER.parent.parent.parent / "docs" / "ARCHITECTURE.md").read_text()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(QWEN2_WORDS), "isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=384, special_tokens=["<unused>", "<s>", "</s>"], show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 3 else 1 for i in range(len(tokens))])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}")
    return len(tokens), [tokenizer.encode(text).ids for text in TEXTS]


def write_options(writer, config):
    head_dim = config.head_dim if getattr(config, "head_dim", None) else config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def write_rope_factors(writer, model):
    config = model.config
    plain = config.rope_parameters["rope_theta"] ** -(numpy.arange(0, config.head_dim, 2, dtype=numpy.float64) / config.head_dim)
    factors = plain / numpy.array(make_goldens.frequencies(model), numpy.float64)
    writer.add_tensor("rope_freqs.weight", factors.astype(numpy.float32))


def write_weights(writer, model, types, rng):
    """Writes the weights and gives the model those that the file then has."""
    config = model.config
    state = model.state_dict()
    for name, tensor in state.items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        values = tensor.numpy().astype(numpy.float32)
        own = name_in_file(name)
        if values.ndim == 1:
            writer.add_tensor(own, values)
            continue
        kind = types.get(None) or types[own.rsplit(".", 2)[-2]]
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(own.rsplit(".", 2)[-2])
        pairs = heads and config.model_type == "llama"
        rows, known = stored(paired(values, heads) if pairs else values, kind, rng)
        writer.add_tensor(own, rows, raw_dtype=kind)
        state[name] = torch.from_numpy(unpaired(known, heads) if pairs else known)
    model.load_state_dict(state)
    model.tie_weights()


def make(name, seed):
    config_class, fields, types = MODELS[name]
    writer = gguf.GGUFWriter(FOLDER / f"{name}.gguf", name)
    texts = []
    fields = dict(fields)
    if name != "qwen3":
        fields["vocab_size"], texts = write_pieces(writer) if name == "llama" else write_merges(writer)
    config = config_class(**fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    make_goldens.randomise(model, seed, torch.float32)
    write_options(writer, config)
    if name == "llama":
        write_rope_factors(writer, model)
    write_weights(writer, model, types, numpy.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    generator = torch.Generator().manual_seed(seed + 1)
    prompts = []
    for length in [1, 7, 64]:
        result, gap = make_goldens.run_prompt(model, torch.randint(0, config.vocab_size, (length,), generator=generator).tolist())
        if gap < make_goldens.MIN_GREEDY_GAP:
            return f"prompt of {length} tokens: greedy gap {gap:.1e}"
        prompts.append(result)
    golden = {"made_by": "tools/make_gguf_goldens.py", "seed": seed, "transformers": transformers.__version__,
              "prompts": prompts, "texts": [t for t in TEXTS if texts and (name != "llama" or "<s>" not in t)], "ids": texts}
    (FOLDER / f"{name}.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    return None


def make_blocks():
    """Bytes of two blocks of each type, and the f32 that `gguf` makes of them, for blocks of normal and of subnormal scales."""
    rng = numpy.random.default_rng(7)
    blob = b""
    index = []
    for kind in (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K):
        size = gguf.GGML_QUANT_SIZES[kind][1]
        blocks = rng.integers(0, 256, (3, size), numpy.uint8)
        scale = 208 if kind == Type.Q6_K else 0
        halves = 1 if kind in (Type.Q4_0, Type.Q5_0, Type.Q8_0, Type.Q6_K) else 2
        scales = numpy.array([[0.37, -0.011], [-1.5, 65504], [3e-7, 6e-8]], numpy.float16)
        blocks[:, scale:scale + 2 * halves] = scales[:, :halves].copy().view(numpy.uint8)
        values = gguf.quants.dequantize(blocks, kind).astype(numpy.float32)
        index.append({"type": kind.name, "begin": len(blob), "blocks": 3})
        blob += blocks.tobytes() + values.tobytes()
    (FOLDER / "blocks.bin").write_bytes(blob)
    (FOLDER / "blocks.json").write_text(json.dumps(index) + "\n")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    transformers.utils.logging.disable_progress_bar()
    make_blocks()
    for name in MODELS:
        for seed in range(100):
            refusal = make(name, seed)
            if refusal is None:
                print(f"{name}: seed {seed}, {(FOLDER / f'{name}.gguf').stat().st_size / 1000:.0f} kB")
                break
            print(f"{name}: seed {seed} refused, {refusal}")


if __name__ == "__main__":
    main()
