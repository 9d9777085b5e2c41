"""Writes golden.json beside the demo model: what the C++ tokenizer and forward pass must reproduce, from transformers in float32.

    golden.py --generator G --folder DIR

Prompts are named by the generator's arguments, not spelled out: seed and target_bytes give the log, and the first of its
first-quarter questions (or the first question of all, for the short log) completes it.
"""

import argparse
import json
import pathlib

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from evaluate import reply_to
from logs import read_logs

LONG = {"seed": 2026, "target_bytes": 31200}
SHORT = {"seed": 11, "target_bytes": 1150}


def prompt_of(generator, tokenizer, seed, target_bytes, early):
    log, = read_logs(generator, seed, 1, target_bytes, target_bytes)
    question = next(q for q in log["questions"] if q["first_quarter"] or not early)
    return tokenizer(log["log"] + "\n" + question["ask"])["input_ids"], question


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generator", required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    model = LlamaForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    golden = {}
    for name, prompt in (("long", LONG), ("short", SHORT)):
        ids, question = prompt_of(args.generator, tokenizer, early=name == "long", **prompt)
        reply, ended = reply_to(model, tokenizer, ids)
        assert reply == f" {question['answer']}." and ended, reply
        golden[name] = prompt | {"question": question["ask"], "answer": question["answer"], "reply": reply,
                                 "prompt_tokens": len(ids)}
        if name == "short":
            logits = model(torch.tensor([ids])).logits[0, -1]
            golden[name] |= {"ids": ids, "logits": [float(f"{x:.7g}") for x in logits.tolist()]}
    (args.folder / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
