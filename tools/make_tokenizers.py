#!/usr/bin/env python3
"""Trains small tokenizers of the families that Runahead reads, for tools/compare_tokenizers.py.

    tools/make_tokenizers.py OUT [--text FILE]

Writes one folder per family under OUT, each with a tokenizer.json whose parts (normalizer, pre-tokenizer, decoder,
post-processor, flags of the added tokens) are those of the published files; only the vocabulary is small, learnt from
generated text in many scripts and, where given, from FILE. Needs: pip install tokenizers.
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ALPHABETS = [
    "etaoinshrdlu", "ETAOIN", "0123456789", "éàüñçßøåæœ", "日本語中文字漢かなカナ", "абвгдежзик", "אבגדהו", "हिन्दी",
    "한국어가나다", "🙂🙃👍🏽", ".,;:!?'\"()-", "{}[]<>=+*/_#", "e\u0301n\u0303", "\n", "\t", "  ", "٠١٢٣",
]  # fmt: skip


def generated_lines(count=4000, seed=5):
    rng = random.Random(seed)
    words = ["".join(rng.choice(a) for _ in range(rng.randrange(1, 7))) for a in ALPHABETS for _ in range(40)]
    for _ in range(count):
        yield rng.choice((" ", " ", " ", "", "  ", "\n")).join(rng.choice(words) for _ in range(rng.randrange(2, 20)))


def byte_level(use_regex=True, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert=invert)


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def bos_template(bos, bos_id):
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bos_id)])


class Maker:
    def __init__(self, out, lines):
        self.out = out
        self.lines = lines

    def save(self, name, tokenizer, edit=None):
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        file = json.loads(tokenizer.to_str())
        if edit:
            edit(file)
        (folder / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")
        Tokenizer.from_file(str(folder / "tokenizer.json"))

    def byte_level_bpe(self, name, pre_tokenizer, *, normalizer=None, added=(), specials=("<|endoftext|>",), template=None,
                       edit=None, **model):  # fmt: skip
        tokenizer = Tokenizer(models.BPE(**model))
        if normalizer:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=1200, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=list(specials),
            show_progress=False)  # fmt: skip
        tokenizer.train_from_iterator(self.lines, trainer)
        tokenizer.post_processor = template(tokenizer) if template else processors.ByteLevel(trim_offsets=True)
        tokenizer.add_tokens(list(added))
        self.save(name, tokenizer, edit)

    def spm_bpe(self, name, *, normalizer, pre_tokenizer=None, decoder, added=(), specials=("<unk>", "<s>", "</s>"),
                bos="<s>"):  # fmt: skip
        """As the conversion of a SentencePiece BPE model looks: byte tokens behind the special ones, then the pieces."""
        learner = Tokenizer(models.BPE(unk_token="<unk>"))
        learner.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        learner.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
        trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=["<unk>"], show_progress=False)
        learner.train_from_iterator(self.lines, trainer)
        learnt = json.loads(learner.to_str())["model"]
        tokens = list(specials) + [f"<0x{byte:02X}>" for byte in range(256)]
        merged = [token for token, _ in sorted(learnt["vocab"].items(), key=lambda item: item[1]) if token != "<unk>"]
        merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in learnt["merges"]]
        runs = ["\u2581" * 2**k for k in range(1, 5)]
        merges = [(run[: len(run) // 2],) * 2 for run in runs] + merges
        tokens += [token for token in runs + merged if token not in tokens]
        vocab = {token: i for i, token in enumerate(tokens)}
        tokenizer = Tokenizer(
            models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))  # fmt: skip
        tokenizer.normalizer = normalizer
        if pre_tokenizer:
            tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoder
        tokenizer.post_processor = bos_template(bos, vocab[bos])
        tokenizer.add_special_tokens([special(token) for token in specials])
        tokenizer.add_tokens(list(added))
        self.save(name, tokenizer)


def odd_tokens():
    """Every flag, beside and inside one another."""
    return [
        special("<|left|>", lstrip=True), special("<|right|>", rstrip=True),
        special("<|both|>", lstrip=True, rstrip=True), special("<|word|>", single_word=True),
        AddedToken("word", single_word=True, normalized=False), AddedToken("wordé", normalized=True),
        AddedToken("<tag>", normalized=True, lstrip=True), AddedToken("ﬁ", normalized=True),
        AddedToken("a b", normalized=True, rstrip=True), AddedToken("日本", single_word=True, normalized=True),
        AddedToken("  ", normalized=True), AddedToken("<tag>!", normalized=False),
    ]  # fmt: skip


def make_all(maker):
    nfc = normalizers.NFC()
    spaces = [AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)]
    sequence = pre_tokenizers.Sequence
    maker.byte_level_bpe("gpt-neox", byte_level(), normalizer=nfc, added=spaces, specials=("<|endoftext|>", "<|padding|>"))
    chat = [special(token) for token in ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>")]
    maker.byte_level_bpe("qwen3", sequence([split(QWEN_WORDS), byte_level(False)]), normalizer=nfc, added=chat)
    begin = "<|begin_of_text|>"
    headers = [special(token) for token in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")]
    maker.byte_level_bpe(
        "llama3", sequence([split(LLAMA3_WORDS), byte_level(False)]), added=headers, specials=(begin,), ignore_merges=True,
        template=lambda t: processors.Sequence(
            [processors.ByteLevel(trim_offsets=False), bos_template(begin, t.token_to_id(begin))]))  # fmt: skip
    maker.byte_level_bpe(
        "tekken", sequence([split(TEKKEN_WORDS), byte_level(False)]), specials=("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        ignore_merges=True, template=lambda t: bos_template("<s>", t.token_to_id("<s>")))  # fmt: skip
    deepseek = [
        split("[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-Ρ]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
        split(r"\s+$"), split("[一-龥ࠀ-一가-퟿]+"), pre_tokenizers.Digits(individual_digits=True), byte_level(False)]  # fmt: skip
    maker.byte_level_bpe("deepseek-llm", sequence(deepseek), specials=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"))
    deepseek3 = [
        split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
        split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
              r"|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level(False)]  # fmt: skip
    maker.byte_level_bpe("deepseek-v3", sequence(deepseek3))
    starcoder = sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
    maker.byte_level_bpe("starcoder", starcoder, specials=("<|endoftext|>", "<fim_prefix>", "<fim_middle>"))
    falcon = [pre_tokenizers.Punctuation("contiguous"), byte_level(), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")]
    maker.byte_level_bpe("falcon", sequence(falcon), specials=(">>TITLE<<", ">>ABSTRACT<<", "<|endoftext|>"))
    maker.byte_level_bpe("gpt2-odd-tokens", byte_level(add_prefix_space=True), normalizer=normalizers.NFKC(), added=odd_tokens())

    prepend = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    plain = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    stripped = decoders.Sequence([*plain, decoders.Strip(" ", 1, 0)])
    phi3 = [special(f"<|{name}|>", rstrip=True) for name in ("assistant", "end", "system", "user", "placeholder1")]
    maker.spm_bpe("phi-3", normalizer=prepend, decoder=stripped, added=[AddedToken("</s>", rstrip=True, normalized=False), *phi3])
    maker.spm_bpe("llama-odd-tokens", normalizer=prepend, decoder=stripped, added=odd_tokens())
    maker.spm_bpe(
        "llama-metaspace", normalizer=normalizers.Sequence([]),
        pre_tokenizer=pre_tokenizers.Metaspace("\u2581", "first", split=False), decoder=stripped)  # fmt: skip
    html = [AddedToken(text, normalized=False) for text in ("\n\n", "\n\n\n", "\t\t", "<table>", "</h1>", "\u2581\u2581\u2581")]
    turns = [special("<start_of_turn>"), special("<end_of_turn>"), special("<2mass>")]
    maker.spm_bpe(
        "gemma2", normalizer=normalizers.Replace(" ", "\u2581"), pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
        decoder=decoders.Sequence(plain), specials=("<pad>", "<eos>", "<bos>", "<unk>"), bos="<bos>", added=turns + html)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to write to")
    parser.add_argument("--text", type=Path, help="more text to learn from")
    options = parser.parse_args()
    lines = list(generated_lines())
    if options.text:
        lines += options.text.read_text(encoding="utf-8")[:400000].splitlines()
    make_all(Maker(options.out, lines))


if __name__ == "__main__":
    main()
