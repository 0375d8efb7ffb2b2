"""Quantisation-aware distillation: what an INT8 network begins with, and what it is worth after.

Where no scheme keeps the allowance, the fastest one learns: its weights, biases and scales, through
the rounding (`FakeQuantized`), towards the original network. Who trains is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from stages.quantize.candidate import Candidate
from stages.quantize.choice import Allowance
from stages.quantize.fake_quantized import FakeQuantized
from stages.quantize.report import Tried
from stages.quantize.workbench import Workbench

DISTILLATION = "distillation"


@dataclass(frozen=True)
class Start:
    """What training begins with.

    Attributes:
        float_graph: that `plain` was made of.
        plain: calibrated, with all its nodes in INT8 that can be.
        best: what would be handed out without training.
        tried: all that was looked at so far.
        calibration: how many images gave the ranges.
    """

    float_graph: bytes
    plain: Candidate
    best: Candidate
    tried: tuple[Tried, ...]
    calibration: dict[str, Any] = field(default_factory=dict)


Train = Callable[[FakeQuantized, Start], None]
"""Train the network in place, towards the original one; it is in float and made of the graph."""


def retrained(bench: Workbench, start: Start, train: Train, allowance: Allowance) -> Candidate:
    """The trained graph, scored on all images, where it keeps the allowance; else the one of it and
    `start.best` that loses least.

    Raises:
        Unsupported: the network has an operator that cannot be trained here.
    """
    plain = start.plain
    bench.tell(f"distillation of {plain.tried.scheme}")
    network = FakeQuantized(start.float_graph, plain.graph.model)
    with bench.phase("train"):
        train(network, start)
    graph = replace(plain.graph, model=network.written())
    steps = (*plain.tried.steps, DISTILLATION)
    score = bench.score(graph.model)
    after = Candidate(replace(plain.tried, timing=None, score=score, steps=steps), graph)
    if not allowance.problem(score):
        return after
    return min((start.best, after), key=lambda one: one.score.drop)
