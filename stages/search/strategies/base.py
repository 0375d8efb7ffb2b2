"""What every strategy is given, and the ask/tell interface it answers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Counts
from pipeline.config.search import SearchConfig
from stages.search.space.candidate import Candidate
from stages.search.space.projection import Projector
from stages.search.space.ranking import Importance, Removal, Removed
from stages.search.space.space import Space

Vector = NDArray[np.float64]

# logit up to which strategies start: a group that is kept whole can still be moved
START_LIMIT = 4.0


@dataclass(frozen=True)
class Task:
    """What a strategy has to work with.

    Attributes:
        projector: budget, space and cost; the only way from an action to counts.
        importance: per group of the space, the importance of its units, any order.
        seed: seeds everything a strategy draws.
        trials: evaluations the strategy will be given.
        settings: the section `search`; a strategy's own settings are a section in it.
        loss: what counts (G,) lose, as the loss table predicts; every search has one.
        solution: the counts that it prefers.
    """

    projector: Projector
    importance: Importance
    seed: int
    trials: int
    settings: SearchConfig = field(default_factory=SearchConfig)
    loss: Removed | None = None
    solution: Counts | None = None

    @property
    def space(self) -> Space:
        return self.projector.space

    @cached_property
    def removed(self) -> Removed:
        """What counts (G,) lose: as predicted, or else the importance that they cut away."""
        return Removal(self.importance) if self.loss is None else self.loss

    @cached_property
    def start(self) -> Counts:
        """Where learning starts, (G,): the table's solution, else the global ranking's."""
        return greedy_counts(self) if self.solution is None else self.solution


class Strategy(Protocol):
    """Proposes candidates and learns from their scores (higher is better).

    Deterministic: the same task and the same scores give the same proposals, which is what lets a
    journal of scores restore an interrupted search exactly.
    """

    def ask(self, room: int) -> list[Candidate]:
        """At most `room` candidates, all to be scored before the next call; empty: no more."""
        ...

    def tell(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Scores of what the last `ask` returned, in order."""
        ...

    def state(self) -> dict[str, Vector]:
        """What was learned so far, as named arrays; empty for strategies that do not learn."""
        ...

    def findings(self) -> list[str]:
        """Sentences the user should read, such as a collapse of the policy."""
        ...


class Unlearning:
    """Base of the strategies that do not learn."""

    def tell(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Changes nothing."""

    def state(self) -> dict[str, Vector]:
        return {}

    def findings(self) -> list[str]:
        return []


def uniform_counts(task: Task) -> Counts:
    """The same keep ratio in every group, (G,)."""
    return task.projector.keeping_branches.logits(np.zeros(len(task.space)))


def greedy_counts(task: Task) -> Counts:
    """Global ranking: remove the block with the least importance per unit of cost until the budget
    is met; (G,).

    Importances are compared across groups, so they must be on one scale; first-order Taylor is (it
    estimates the change of the same loss), cf. Molchanov et al., arXiv 1906.10771.
    """
    projector, space, sums = task.projector, task.space, Removal(task.importance).sums
    counts = space.sizes.copy()
    # a block within one of the runtime's own blocks saves nothing yet
    least = 1e-9 * projector.cost.of(space.sizes)
    while not projector.fits(counts):
        steps = space.down(counts)
        saved = -projector.deltas(counts, -steps)
        able = np.flatnonzero(steps > 0)
        removed = space.sizes - counts
        lost = np.array([sums[g][removed[g] + steps[g]] - sums[g][removed[g]] for g in able])
        chosen = able[np.argmin(lost / np.maximum(saved[able], least))]
        counts = space.moved(counts, chosen, counts[chosen] - steps[chosen])
    return projector.logits(space.logits(counts))
