"""A quantised graph under consideration."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.runtime.quantizer import QuantizedGraph
from stages.quantize.report import Score, Tried


@dataclass(frozen=True)
class Candidate:
    """A graph with what was measured of it."""

    tried: Tried
    graph: QuantizedGraph

    @property
    def ratio(self) -> float:
        assert self.tried.timing is not None
        return self.tried.timing.ratio

    @property
    def score(self) -> Score:
        assert self.tried.score is not None
        return self.tried.score
