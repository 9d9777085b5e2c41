"""What the scripts beside this one share: their options, and what they print and write, the fields of
`runahead bench --json`'s results.
"""

import argparse
import json
import statistics

import torch

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def common_options(story):
    """A parser of the options that every peer has; the help says the first line of `story`."""
    parser = argparse.ArgumentParser(description=story.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--contexts", default="4096,16384")
    parser.add_argument("--dtype", default="bf16", choices=DTYPES)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", help="write all times")
    return parser


class Results:
    """Collects the times of one peer and, when asked for, writes them as JSON."""

    def __init__(self, peer, model, dtype, device, ranks, path=None):
        self.facts = {"peer": peer, "model": model, "dtype": dtype, "device": device, "ranks": ranks}
        self.path = path
        self.results = []

    def add(self, context, times_ms):
        median = statistics.median(times_ms)
        self.results.append({"peer": self.facts["peer"], "ranks": self.facts["ranks"], "context": context,
                             "ttft_ms": times_ms, "ttft_ms_median": median})
        print(f"{context} tokens: {median:.2f} ms (from {min(times_ms):.2f} to {max(times_ms):.2f}), "
              f"{self.facts['peer']} in {self.facts['dtype']} on {self.facts['ranks']} x {self.facts['device']}",
              flush=True)
        if self.path:
            with open(self.path, "w", encoding="utf-8") as file:
                json.dump({**self.facts, "results": self.results}, file, indent=1)
