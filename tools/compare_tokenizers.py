#!/usr/bin/env python3
"""Compares the token ids of a command, and the texts they decode to, with Hugging Face's tokenizers on many nasty texts.

    tools/compare_tokenizers.py --command "build/release/bin/runahead tokenize" MODEL_DIR...

For every model folder (with a tokenizer.json) the command is run as `COMMAND --model DIR --json-lines [--no-special]`
and must print one JSON list of ids per input line, each input line being a JSON string; with `--decode` it must turn
such lists back into JSON strings. The reference is transformers' PreTrainedTokenizerFast on the same folder;
tools/make_tokenizers.py makes folders of many families. Needs: pip install transformers tokenizers.
Prints every difference (up to --show) and exits with 1 when there is one.
"""

import argparse
import json
import random
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

from transformers import PreTrainedTokenizerFast

FIXED = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000x", "\u180ex", "\u200b", "\u0085a",
    "a", " a", "a ", "  a  b  ", "Hello, world!", "Hello  world", "I'm you'RE we'Ve it'S'll 'd'D 'ſ 'ſx",
    "1", "12", "123", "1234", "12345678901234567890", "3.14159", "1,000,000", "٣٤٥", "Ⅷ½²³", "x1y22z333",
    "ﬁne ﬀ İstanbul straße ẞ K Å", "e\u0301 \u00e9 n\u0303 \u1e9b\u0323", "가각힣 \u1100\u1161\u11a8", "日本語のテキスト。",
    "中文文本，没有空格", "Привет, мир", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "🙂🙃👨‍👩‍👧‍👦🏳️‍🌈🇩🇪", "👍🏽" * 5,
    "\x00\x01\x02", "a\x00b", "\x7f\x80", "\ufeffbom", "\ufffd\uffff", "\U0010ffff", "\U0001f9ff\U00020000\U0002a6df",
    "\u2581", "\u2581\u2581a", "a\u2581b", " \u2581", "<0x0A>", "<0xZZ>", "<unk>", "<s>", "</s>", "<s>a</s>", "a <s> b",
    "\"quotes\" 'single' `tick`", "(a)[b]{c}<d>", "a_b-c/d\\e|f", "...---...", "!!!???", "«»„“”‘’—–…·", "def f(x):\n    return x\n",
    "\tint main() {\n\t\treturn 0;\n\t}\n", "https://example.com/a?b=c&d=%20#e", "user@example.com", "CamelCaseWordsHTTPServer",
    "a" * 500, "ab" * 300, "\n" * 100, " " * 200 + "x", "\u2581" * 60, "é" * 100, "0" * 200, "=" * 120, "-" * 77, "🙂" * 40,
    "word " * 50, " ".join(str(i) for i in range(60)), "\r\n\r\n\n\r \n\t\r", "x\u0300\u0301\u0302\u0303y", "ᚠᛇᚻ", "𝕳𝖊𝖑𝖑𝖔", "ａｂｃ１２３",
]

POOLS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCxyz  ",
    "0123456789",
    " \t\n\r",
    "   ",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "'sStTrRvVmMlLdDeE ",
    "éàüñçßøåæœ",
    "\u0300\u0301\u0308\u0323\u0327\u20dd",
    "日本語中文字漢字かなカナ한국어",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "🙂🙃😀👍🏽👩‍🚀🇫🇷❤️",
    "\u2581\u00a0\u2003\u3000\u200b\u200d\ufeff\u180e\u2028\u2029\x85\x0b\x0c\x1c\x1f",
    "\x00\x01\x1b\x7f\u0080\u009f\u00ad",
    "٠١٢٣٤٥٦٧٨٩०१२३½¾Ⅷ①²",
    "¡¿§¶†‡•…–—‘’“”«»‹›€£¥©®™",
]

# What stands beside special tokens: their flags look at spaces, word characters, and what a normalizer changes.
NEIGHBOURS = [
    "", "", "", " ", "  ", "\n", "\t ", "x", "\u00a0", "\u3000", "\u2581", "\u2028", "\u0085", "\x1c", "\u200b", "\u200d",
    "_", "0", "é", "e\u0301", "\u0301", "日", "ﬁ", "\u180e", "🙂", "-", "<", "|>", "'s",
]  # fmt: skip


def random_character(rng):
    """Any assigned character; private and unassigned ones now and then."""
    while True:
        code = rng.choice((rng.randrange(0x80, 0x3000), rng.randrange(0x3000, 0x20000), rng.randrange(0x110000)))
        character = chr(code)
        category = unicodedata.category(character)
        if category != "Cs" and (category not in ("Cn", "Co") or rng.random() < 0.02):
            return character


def random_text(rng, special, corpus):
    parts = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.random()
        if kind < 0.55:
            pool = rng.choice(POOLS)
            parts.append("".join(rng.choice(pool) for _ in range(rng.randrange(1, 12))))
        elif kind < 0.65 and special:
            parts.append(rng.choice(NEIGHBOURS) + rng.choice(special) + rng.choice(NEIGHBOURS))
        elif kind < 0.75:
            parts.append("".join(random_character(rng) for _ in range(rng.randrange(1, 8))))
        elif kind < 0.9 and corpus:
            start = rng.randrange(len(corpus))
            parts.append(corpus[start : start + rng.randrange(1, 80)])
        elif kind < 0.93 and corpus:  # long words
            start = rng.randrange(len(corpus))
            parts.append("".join(corpus[start : start + rng.randrange(100, 1500)].split()))
        elif kind < 0.95:
            letters = "".join(rng.choice(POOLS[0]) for _ in range(rng.randrange(2, 8)))
            parts.append("".join(rng.choice(letters) for _ in range(rng.randrange(30, 600))))
        else:
            parts.append(rng.choice((" ", "\n", "a", "\u2581", "é", "0", "漢")) * rng.randrange(1, 40))
    return "".join(parts)


def texts_for(tokenizer, count, seed, corpus):
    rng = random.Random(seed)
    special = sorted(str(token) for token in tokenizer.added_tokens_decoder.values())
    texts = list(FIXED)
    for token in special[:40]:
        texts += [token, f"a{token}b", f" a  {token}  b ", f"{token}{token}", f"\n{token}\n", token[:-1], token[1:]]
    for start in range(0, 0x30000, 64):  # every character of three planes, between letters and alone
        block = [chr(c) for c in range(start, start + 64) if not 0xD800 <= c < 0xE000]
        block = [c for c in block if unicodedata.category(c) != "Cn"]
        if block:
            texts += ["".join(block), " ".join(block), "a".join(block)]
    texts += [random_text(rng, special, corpus) for _ in range(count)]
    return texts


def run_command(command, model, lines, flags):
    line = shlex.split(command) + ["--model", str(model), "--json-lines"] + flags
    # ASCII only, so that no character can be taken for the end of a line.
    source = "".join(json.dumps(value) + "\n" for value in lines)
    run = subprocess.run(line, input=source, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{shlex.join(line)} ends with {run.returncode}: {run.stderr.strip()}")
    answers = [json.loads(answer) for answer in run.stdout.split("\n")[:-1]]
    if len(answers) != len(lines):
        sys.exit(f"{model}: {len(answers)} answers for {len(lines)} lines")
    return answers


def random_ids(tokenizer, count, seed):
    rng = random.Random(seed)
    ids = sorted(tokenizer.get_vocab().values())
    return [[rng.choice(ids) for _ in range(rng.randrange(1, 12))] for _ in range(count)]


def compare(model, options, corpus):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(model))
    texts = texts_for(tokenizer, options.count, options.seed, corpus)
    differences = 0

    def report(source, ours, theirs):
        nonlocal differences
        if ours == theirs:
            return
        differences += 1
        if differences <= options.show:
            print(f"  {source!r}\n    command      {ours!r}\n    transformers {theirs!r}")

    for flags in ([], ["--no-special"]):
        wanted = tokenizer(texts, add_special_tokens=not flags)["input_ids"]
        for line in zip(texts, run_command(options.command, model, texts, flags), wanted):
            report(*line)
        # Tokens that the normalizer changes: tokenizers decodes them to the changed text since 0.23, as written before.
        changed = {i for i, t in tokenizer.added_tokens_decoder.items()
                   if t.normalized and tokenizer.backend_tokenizer.id_to_token(i) != t.content}  # fmt: skip
        lists = [ids for ids in wanted + random_ids(tokenizer, options.count, options.seed)
                 if not changed.intersection(ids)]  # fmt: skip
        # The flag that leaves special tokens out when encoding keeps them when decoding.
        texts_back = run_command(options.command, model, lists, ["--decode", *flags])
        for ids, text in zip(lists, texts_back):
            report(ids, text, tokenizer.decode(ids, bool(not flags), clean_up_tokenization_spaces=False))
    print(f"{model}: {len(texts)} texts, there and back, with and without special tokens: {differences} differences")
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="folders with a tokenizer.json")
    parser.add_argument("--command", required=True, help="prints ids: see above")
    parser.add_argument("--count", type=int, default=5000, help="random texts per model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="a text whose stretches are mixed into the random texts")
    parser.add_argument("--show", type=int, default=5, help="differences to print per model")
    options = parser.parse_args()
    corpus = options.corpus.read_text(encoding="utf-8") if options.corpus else ""
    sys.exit(1 if sum([compare(model, options, corpus) for model in options.models]) else 0)


if __name__ == "__main__":
    main()
