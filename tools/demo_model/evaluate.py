"""Measures a demo model folder with plain Hugging Face transformers: exact answers to fresh logs, fact in the first quarter.

    evaluate.py --generator G --folder DIR [--tokens 1000,2000,4000,8000] [--prompts 200] [--dtype bfloat16] [--json FILE]
"""

import argparse
import json
import pathlib
import time

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from logs import read_logs

BYTES_PER_TOKEN = 3.9
FIRST_SEED = 1  # training uses seeds from 2^48 on


def fresh_prompts(generator, tokenizer, tokens, prompts):
    """(token ids, answer) of `prompts` logs of about `tokens` tokens, one question each, asked about the first quarter."""
    target = int(tokens * BYTES_PER_TOKEN)
    found = 0
    for log in read_logs(generator, FIRST_SEED + 1000000 * tokens, 4 * prompts, target, target):
        early = [question for question in log["questions"] if question["first_quarter"]]
        if not early:
            continue
        question = early[0]
        ids = tokenizer(log["log"] + "\n" + question["ask"])["input_ids"]
        before = len(tokenizer(log["log"][:question["fact_end"]])["input_ids"])
        assert 4 * before <= len(ids), (log["seed"], before, len(ids))
        yield ids, question["answer"], log["seed"]
        found += 1
        if found == prompts:
            return


@torch.inference_mode()
def reply_to(model, tokenizer, ids, limit=16):
    """Greedy decoding up to the first full stop, newline or end; (reply, whether the end token came by itself)."""
    step = torch.tensor([ids], device=model.device)
    cache, reply = None, []
    for _ in range(limit):
        out = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        token = out.logits[0, -1].argmax().item()
        if token == tokenizer.eos_token_id:
            return tokenizer.decode(reply), True
        reply.append(token)
        step = torch.tensor([[token]], device=model.device)
    return tokenizer.decode(reply), False


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generator", required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--tokens", default="1000,2000,4000,8000")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--json", type=pathlib.Path, default=None)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    model = LlamaForCausalLM.from_pretrained(args.folder, dtype=getattr(torch, args.dtype)).to(device).eval()
    results = []
    for tokens in (int(t) for t in args.tokens.split(",")):
        start, right, ended, count, longest, wrong = time.monotonic(), 0, 0, 0, 0, []
        for ids, answer, seed in fresh_prompts(args.generator, tokenizer, tokens, args.prompts):
            reply, by_itself = reply_to(model, tokenizer, ids)
            said = reply.split(".")[0].split("\n")[0].strip(" ")
            count, right, ended = count + 1, right + (said == answer), ended + by_itself
            longest = max(longest, len(ids))
            if said != answer:
                wrong.append({"seed": seed, "answer": answer, "said": said})
        results.append({"tokens": tokens, "longest": longest, "dtype": args.dtype, "prompts": count, "right": right,
                        "ended_by_itself": ended, "wrong": wrong})
        print(f"{args.dtype} {tokens} tokens (longest prompt {longest}): {right} of {count} right, {ended} ended by "
              f"themselves, {time.monotonic() - start:.0f} s; wrong: {wrong[:4]}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
