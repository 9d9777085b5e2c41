"""Runahead: the first token of a long prompt, sooner, from several ranks.

    engine = runahead.Engine("models/demo", devices="cpu:2")
    tokenizer = runahead.Tokenizer("models/demo")
    prompt = tokenizer.encode("Once upon a time")
    session = engine.session(capacity=len(prompt) + 16)
    report = session.prefill(prompt)       # report.ttft_ms, report.cuts
    session.append(int(session.logits.argmax()))

`plan` and `simulate` predict prompts on clusters that need not exist. Every error of the library is an `Error`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ._runahead import (
    BuildInfo,
    ConfigError,
    DeviceError,
    Engine,
    Error,
    Generation,
    IoError,
    LinkError,
    ModelFacts,
    PlannedStrategy,
    Planner,
    PrefillReport,
    PromptPlan,
    RefusedError,
    Session,
    SimulatedPrompt,
    StreamDecoder,
    TimelineEvent,
    Tokenizer,
    build_info,
    end_tokens,
)

__version__ = build_info().version

_USUAL_CLUSTER = "8xh100-nvlink"


def plan(
    cluster: str | os.PathLike[str] = _USUAL_CLUSTER,
    *,
    model: str = "",
    contexts: Sequence[int] = (),
    ranks: Sequence[int] = (),
    partition: str | Sequence[float] = "auto",
) -> list[PromptPlan]:
    """Predict TTFT and the best strategy: one plan for each context and number of ranks.

    cluster: a name of `Planner.known_clusters()`, or the path of a description in TOML.
    model: a name of `Planner.known_models()`, or a model's folder; empty: the description's.
    contexts: tokens of the prompts; empty: the description's.
    ranks: use the so many fastest devices; empty: 1 to 8, powers of two, and all.
    partition: "auto" (searched on the simulator), "even", or fractions, one for each rank.
    """
    return Planner(os.fspath(cluster), model).plan(list(contexts), list(ranks), partition)


def simulate(
    scheme: str,
    cuts: Sequence[int],
    cluster: str | os.PathLike[str] = _USUAL_CLUSTER,
    *,
    model: str = "",
    devices: Sequence[int] = (),
    timeline: bool = False,
) -> SimulatedPrompt:
    """Play one prompt phase, layer by layer, on a cluster's costs.

    scheme: "single", "runahead chain", "runahead direct", "tsp", "tsp-causal" or "tp".
    cuts: [ranks + 1], from 0 to the tokens of the prompt.
    devices: one for each rank, by its place in the description; empty: the fastest ones.
    """
    return Planner(os.fspath(cluster), model).simulate(scheme, list(cuts), list(devices), timeline)


__all__ = [
    "BuildInfo",
    "ConfigError",
    "DeviceError",
    "Engine",
    "Error",
    "Generation",
    "IoError",
    "LinkError",
    "ModelFacts",
    "PlannedStrategy",
    "Planner",
    "PrefillReport",
    "PromptPlan",
    "RefusedError",
    "Session",
    "SimulatedPrompt",
    "StreamDecoder",
    "TimelineEvent",
    "Tokenizer",
    "build_info",
    "end_tokens",
    "plan",
    "simulate",
]
