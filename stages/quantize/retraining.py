"""Quantisation-aware distillation: what an INT8 network begins with, and what it is worth after.

Where no scheme keeps the allowance, the fastest one learns: its weights, biases and scales, through
the rounding (`FakeQuantized`), towards the original network. Who trains is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.runtime.quantizer import QuantizedGraph
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
        float_graph: that `graph` was made of.
        graph: calibrated, with all its nodes in INT8 that can be.
        tried: all that was looked at so far; the last is this graph.
        calibration: how many images gave its ranges.
    """

    float_graph: bytes
    graph: QuantizedGraph
    tried: tuple[Tried, ...]
    calibration: dict[str, Any] = field(default_factory=dict)


Train = Callable[[FakeQuantized, Start], None]
"""Train the network in place, towards the original one; it is in float and made of the graph."""


def retrained(
    bench: Workbench, start: Start, train: Train, best: Candidate | None, allowance: Allowance
) -> Candidate | None:
    """The trained graph, scored on all images, or `best`: the one that keeps the allowance, and
    where neither does, the one that loses least.

    Raises:
        Unsupported: the network has an operator that cannot be trained here.
    """
    bench.tell(f"distillation of {start.tried[-1].scheme}")
    network = FakeQuantized(start.float_graph, start.graph.model)
    with bench.phase("train"):
        train(network, start)
    graph = replace(start.graph, model=network.written())
    steps = (*start.tried[-1].steps, DISTILLATION)
    score = bench.score(graph.model)
    after = Candidate(replace(start.tried[-1], timing=None, score=score, steps=steps), graph)
    if best is None or not allowance.problem(score):
        return after
    return min((best, after), key=lambda one: one.score.drop)
