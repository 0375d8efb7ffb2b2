"""What every strategy is given, and the ask/tell interface it answers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.search.budget import Projector
from stages.search.space import Counts, Removal, Space

Vector = NDArray[np.float64]
Key = tuple[int, ...]
WARM_START = "warm start"  # origin of the candidate that a strategy starts from


@dataclass(frozen=True)
class Problem:
    """One search.

    Attributes:
        projector: budget, space and cost; the only way from an action to counts.
        importance: per group of the space, the importance of its units, any order.
        seed: seeds everything a strategy draws.
        trials: evaluations the strategy will be given.
        options: the strategy's own settings.
    """

    projector: Projector
    importance: tuple[Vector, ...]
    seed: int
    trials: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        return self.projector.space

    @cached_property
    def removed(self) -> Removal:
        """Importance that counts (G,) cut away."""
        return Removal(self.importance)


@dataclass(frozen=True)
class Proposal:
    """One candidate to be scored.

    Attributes:
        counts: units kept per group, (G,). action: the numbers that the strategy drew, for the
        journal. origin: where it comes from, such as "policy" or "warm start". eligible: whether it
        may become the plan (an intermediate step of `rlpruner` may not). step: candidates of
        different steps have different budgets; only within one are scores comparable.
    """

    counts: Counts
    action: Vector
    origin: str
    eligible: bool = True
    step: int = 0

    @property
    def key(self) -> Key:
        """The counts, hashable."""
        return tuple(self.counts.tolist())


class Strategy(Protocol):
    """Proposes candidates and learns from their scores (higher is better).

    Deterministic: the same problem and the same scores give the same proposals, which is what lets
    a journal of scores restore an interrupted search exactly.
    """

    def ask(self, room: int) -> list[Proposal]:
        """At most `room` candidates, all to be scored before the next call; empty when it has
        no more.
        """
        ...

    def tell(self, proposals: Sequence[Proposal], scores: Sequence[float]) -> None:
        """Scores of what the last `ask` returned, in order."""
        ...

    def state(self) -> dict[str, Vector]:
        """What was learned so far, as named arrays; empty for strategies that do not learn."""
        ...

    def findings(self) -> list[str]:
        """Sentences the user should read, such as a collapse of the policy."""
        ...


class Stateless:
    """Base of the strategies that do not learn."""

    def tell(self, proposals: Sequence[Proposal], scores: Sequence[float]) -> None: ...

    def state(self) -> dict[str, Vector]:
        return {}

    def findings(self) -> list[str]:
        return []


def uniform_counts(problem: Problem) -> Counts:
    """The same keep ratio in every group."""
    return problem.projector.logits(np.zeros(len(problem.space)))


def greedy_counts(problem: Problem) -> Counts:
    """Global ranking: remove the block with the least importance per unit of cost until the budget
    is met.

    Importances are compared across groups, so they must be on one scale; first-order Taylor is (it
    estimates the change of the same loss), cf. Molchanov et al., arXiv 1906.10771.
    """
    projector, space, sums = problem.projector, problem.space, problem.removed.sums
    counts = space.sizes.copy()
    least = 1e-9 * projector.cost.of(
        space.sizes
    )  # a block within one of the runtime's blocks saves nothing yet
    while not projector.fits(counts):
        steps = space.down(counts)
        saved = -projector.cost.deltas(counts, -steps)
        able = np.flatnonzero(steps > 0)
        removed = space.sizes - counts
        lost = np.array([sums[g][removed[g] + steps[g]] - sums[g][removed[g]] for g in able])
        chosen = able[np.argmin(lost / np.maximum(saved[able], least))]
        counts[chosen] -= steps[chosen]
    return projector.logits(space.logits(counts))
