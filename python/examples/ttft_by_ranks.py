#!/usr/bin/env python3
"""Plots the time to the first token (TTFT) against ranks: measured on this machine, or predicted for a described cluster.

    ttft_by_ranks.py --model models/demo --ranks 1,2 --contexts 2000,8000
    ttft_by_ranks.py --cluster 8xh100-nvlink --contexts 4096,16384 --plot ttft.svg
"""

from __future__ import annotations

import argparse
import statistics

import runahead

Times = dict[int, dict[int, float]]  # TTFT in ms by tokens and ranks


def measure(model: str, contexts: list[int], ranks: list[int], repeats: int) -> Times:
    """Median TTFT of prompts of arbitrary tokens, with the partition that the planner chooses for all the ranks."""
    times: Times = {context: {} for context in contexts}
    for count in ranks:
        engine = runahead.Engine(model, devices=f"cpu:{count}")
        for context in contexts:
            prompt = [7 * i % engine.facts.vocab for i in range(context)]
            session = engine.session(context)
            runs = [session.prefill(prompt, ranks=count).ttft_ms for _ in range(repeats)]
            times[context][count] = statistics.median(runs)
    return times


def predict(cluster: str, model: str, contexts: list[int], ranks: list[int]) -> Times:
    """TTFT of the best strategy as the simulator has it."""
    times: Times = {}
    for plan in runahead.plan(cluster, model=model, contexts=contexts, ranks=ranks):
        times.setdefault(plan.context, {})[plan.ranks] = plan.best.ttft_ms
    return times


def print_table(times: Times) -> None:
    longest = max(ms for row in times.values() for ms in row.values())
    print(f"{'tokens':>8} {'ranks':>6} {'TTFT ms':>10} {'speed-up':>9}")
    for context, row in times.items():
        first = next(iter(row.values()))
        for count, ms in row.items():
            print(f"{context:>8} {count:>6} {ms:>10.1f} {first / ms:>8.2f}x  {'#' * round(40 * ms / longest)}")


def plot(times: Times, title: str, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    for context, row in times.items():
        axes.plot(list(row), list(row.values()), marker="o", label=f"{context:,} tokens")
    axes.set(xlabel="ranks", ylabel="TTFT, ms", title=title, yscale="log")
    axes.set_xticks(sorted({count for row in times.values() for count in row}))
    axes.legend()
    figure.savefig(path)
    print(f"plot: {path}")


def integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="a Hugging Face folder to measure, or the model to predict for")
    parser.add_argument("--cluster", help="a known cluster, or the path of a TOML file: predict instead of measuring")
    parser.add_argument("--contexts", type=integers, default=[2000, 8000], help="tokens of the prompts")
    parser.add_argument("--ranks", type=integers, default=[], help="numbers of ranks (1,2 when measuring)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each measurement; the median counts")
    parser.add_argument("--plot", help="write a picture (.svg, .png, .pdf); needs matplotlib")
    arguments = parser.parse_args()
    if not arguments.cluster and not arguments.model:
        parser.error("--model or --cluster is needed")

    if arguments.cluster:
        times = predict(arguments.cluster, arguments.model, arguments.contexts, arguments.ranks)
        title = f"predicted: {arguments.cluster}"
    else:
        times = measure(arguments.model, arguments.contexts, arguments.ranks or [1, 2], arguments.repeats)
        title = f"measured: {arguments.model}"
    print_table(times)
    if arguments.plot:
        try:
            plot(times, title, arguments.plot)
        except ImportError:
            raise SystemExit("--plot needs matplotlib: pip install matplotlib") from None


if __name__ == "__main__":
    main()
