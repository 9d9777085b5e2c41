#!/usr/bin/env python3
"""Compares the program with HF transformers on tiny random models of many families, drawn from a seed.

    pip install torch transformers safetensors
    tools/compare_models.py --command build/release/bin/runahead [--seed 1] [--shapes 3] [FAMILY ...]

For each family and shape: a random model in float32, prompts of several lengths, and for each the largest difference of
the last logits as a share of the largest |logit|, on one rank and on several with both topologies; greedy tokens must be
the same. transformers' eager and SDPA attention are compared with each other first.
Prints one line for each model, and ends with 1 where a difference is above --tolerance.
"""
import argparse
import functools
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from make_goldens import MIN_GREEDY_GAP, randomise  # noqa: E402
from model_families import FAMILIES, prepare, rewrite  # noqa: E402

LENGTHS = (1, 2, 7, 64, 130, 333)
RANKS = ((1, "chain"), (2, "chain"), (3, "direct"), (5, "chain"), (5, "direct"))
GREEDY = 4


def reference(model, ids):
    """The logits behind the prompt, the greedy tokens, and the smallest gap of a greedy choice."""
    ids = list(ids)
    first = None
    greedy = []
    gap = float("inf")
    with torch.no_grad():
        for _ in range(GREEDY):
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].float()
            first = logits if first is None else first
            top = torch.topk(logits, 2)
            gap = min(gap, float((top.values[0] - top.values[1]) / logits.abs().max()))
            greedy.append(int(top.indices[0]))
            ids.append(greedy[-1])
    return first, greedy, gap


def ours(command, directory, ids, ranks, topology):
    line = [command, "generate", "--model", str(directory), "--prompt-ids", ",".join(map(str, ids)), "-n", str(GREEDY),
            "--ignore-eos", "--dtype", "f32", "--devices", f"cpu:{ranks}", "--threads-per-rank", "1", "--json", "--logits",
            "--temperature", "0"]  # fmt: skip
    if ranks > 1:
        line += ["--strategy", "runahead", "--topology", topology, "--partition", "even"]
    run = subprocess.run(line, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return None, run.stderr.strip()
    answer = json.loads(run.stdout)
    return torch.tensor(answer["logits"]), answer["ids"]


def difference(got, expected):
    return float((got - expected).abs().max() / expected.abs().max())


def make_model(family, rng, directory):
    fields = FAMILIES[family].draw(rng)
    config = AutoConfig.for_model(FAMILIES[family].model_type, **fields)
    loader = AutoModelForCausalLM
    if hasattr(config, "text_config"):
        config = FAMILIES[family].with_text(fields)
        loader = AutoModelForImageTextToText
    model = loader.from_config(config, dtype=torch.float32).eval()
    randomise(model, rng.randrange(1 << 30), torch.float32)
    prepare(family, model)
    model.save_pretrained(directory)
    only_eager = ("bloom", "gpt_oss", "gpt_oss_mxfp4")  # transformers has no other for these
    best = "eager" if family in only_eager else "sdpa"
    # The grouped products of experts want sizes that ours are not.
    load = functools.partial(loader.from_pretrained, directory, dtype=torch.float32, experts_implementation="eager")
    model = load(attn_implementation=best).eval()
    eager = load(attn_implementation="eager").eval()
    rewrite(family, directory)
    return fields, model, eager


def compare(options, family, index):
    rng = random.Random(f"{options.seed} {family} {index}")
    with tempfile.TemporaryDirectory() as directory:
        fields, model, eager = make_model(family, rng, directory)
        vocab = model.config.get_text_config().vocab_size
        worst = paths = 0.0
        problems = []
        for length in LENGTHS:
            ids = [rng.randrange(vocab) for _ in range(length)]
            expected, greedy, gap = reference(model, ids)
            paths = max(paths, difference(reference(eager, ids)[0], expected))
            for ranks, topology in RANKS:
                if ranks > length:
                    continue
                logits, tokens = ours(options.command, directory, ids, ranks, topology)
                if logits is None:
                    problems.append(tokens)
                    break
                worst = max(worst, difference(logits, expected))
                if gap > MIN_GREEDY_GAP and list(tokens) != greedy:
                    problems.append(f"{length} tokens on {ranks} ranks: ids {tokens}, expected {greedy}")
        wrong = bool(problems) or not worst <= options.tolerance
        print(f"{'WRONG' if wrong else 'ok   '} {family:18} {index}: {worst:.1e}, eager and SDPA {paths:.1e}", flush=True)
        if wrong:
            for problem in sorted(set(problems))[:4]:
                print("      ", problem)
            print("      ", json.dumps(fields))
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="all by default")
    parser.add_argument("--command", required=True, help="the program")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shapes", type=int, default=3, help="models of each family")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    names = options.families or list(FAMILIES)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        sys.exit(f"unknown {', '.join(unknown)}; known: {', '.join(FAMILIES)}")
    wrong = [compare(options, name, index) for name in names for index in range(options.shapes)]
    sys.exit(1 if any(wrong) else 0)


if __name__ == "__main__":
    main()
