"""The table of a search, its entries scored as trials: what an interrupted search measured is in
the journal like any other trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.channels.counts import Counts
from stages.search.engine import Search
from stages.search.evaluation.trial import Trial
from stages.search.space.candidate import Candidate
from stages.search.space.space import Space
from stages.search.tables.loss_table import LossTable
from stages.search.tables.measure import Entry, measure_table

TABLE = "table entries"
"""Phase of the candidates that cut one group alone, or lack one branch."""


class Tabulation:
    """Measures the table of a problem.

    Args:
        most: widths of a group, at most.
        search: with an executor on the problem's `table_evaluator()`.
        expect: told how many entries there will be at most, before each batch of them.

    Attributes:
        trials: one an entry, behind that of the whole network.
    """

    def __init__(
        self,
        space: Space,
        most: int,
        search: Search,
        expect: Callable[[int], None] = lambda total: None,
    ) -> None:
        self.space, self.most, self.search, self.expect = space, most, search, expect
        self.trials: list[Trial] = []

    def __call__(self) -> LossTable:
        """The table, in the unit of the divergence: nats."""
        self._score([self.space.sizes], ["whole"], 0)
        return measure_table(self.space, self._losses, self.most)

    def _losses(self, entries: Sequence[Entry], further: int) -> list[float]:
        rows = [self.space.moved(self.space.sizes, group, width) for group, width in entries]
        names = [self.space.ids[group] for group, _ in entries]
        trials = self._score(rows, names, further)
        # in later rounds the network that is cut is itself not the original
        whole = self.trials[0].outcome.score
        return [whole - trial.outcome.score for trial in trials]

    def _score(self, rows: Sequence[Counts], names: Sequence[str], further: int) -> list[Trial]:
        done = len(self.trials)
        self.expect(done + max(len(rows), further))
        candidates = [
            Candidate(counts, np.zeros(0), name, eligible=False)
            for counts, name in zip(rows, names, strict=True)
        ]
        trials = self.search.score(TABLE, candidates, first=done)
        self.trials += trials
        return trials
