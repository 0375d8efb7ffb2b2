"""Accuracy control: what is done for an INT8 graph that is fast enough and not yet good enough."""

from __future__ import annotations

from dataclasses import replace

from stages.quantize.candidate import Candidate
from stages.quantize.report import Tried
from stages.quantize.workbench import Workbench

BIAS_CORRECTION = "bias correction"


def with_corrected_biases(bench: Workbench, candidate: Candidate, tried: list[Tried]) -> Candidate:
    """The candidate with the mean errors of its channels in its biases, where its outputs on a few
    search images are then nearer to those of fp32; else as it is.
    """
    bench.tell(f"bias correction of {candidate.tried.scheme}")
    graph = bench.correct_biases(candidate.graph)
    score = bench.screen(graph.model) if graph else None
    if graph is None or score is None:
        return candidate
    steps = (*candidate.tried.steps, BIAS_CORRECTION)
    corrected = Candidate(replace(candidate.tried, score=score, steps=steps), graph)
    tried.append(corrected.tried)
    return min((corrected, candidate), key=lambda one: one.score.output_error)
