"""What the scripts beside this one print and write: the fields of `runahead bench --json`'s results."""

import json
import statistics


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
