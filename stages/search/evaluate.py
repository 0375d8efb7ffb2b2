"""What a candidate is worth: cut, batch-norm statistics re-fitted, compared with the original on fixed images.

The images come in rungs. A candidate whose score after the first rung is below a bar is not carried on
(successive halving, Jamieson & Talwalkar, arXiv 1502.07943), so poor candidates cost a fraction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.evaluate import reestimate_batchnorm
from stages.search.caster import Caster
from stages.search.space import Counts, Space
from stages.trace import ChannelGraph

FIRST_RUNG = 0.25  # share of the scoring images that every candidate sees


@dataclass(frozen=True)
class Outcome:
    """Result of one evaluation.

    Attributes:
        score: higher is better; of all images seen.
        rung: the score after the first rung, which decides about carrying on.
        accuracy: top-1 as a fraction of the images seen.
        images: number of images seen.
        stopped: whether the bar ended the evaluation early.
        seconds: wall time.
    """

    score: float
    rung: float
    accuracy: float
    images: int
    stopped: bool
    seconds: float


def divergence(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """-KL(teacher || student) of the class probabilities, (N,): 0 for an unchanged network, in nats."""
    gap = F.log_softmax(teacher, 1) - F.log_softmax(student, 1)
    return -(F.softmax(teacher, 1) * gap).sum(1)


def log_likelihood(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the true class, (N,), in nats."""
    return -F.cross_entropy(student, labels, reduction="none")


def correctness(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """1 where the true class comes first, else 0, (N,)."""
    return (student.argmax(1) == labels).to(student.dtype)


SCORES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "divergence": divergence,
    "likelihood": log_likelihood,
    "accuracy": correctness,
}


@dataclass(frozen=True)
class Ranking:
    """Which units stay, for given counts: the most important of each group.

    Attributes:
        order: per group of the space, unit indices from the most to the least important.
    """

    ids: tuple[str, ...]
    order: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, space: Space, importance: dict[str, Tensor]) -> Ranking:
        """From importances per group id, (size,); equal ones keep the lower index."""
        order = tuple(tuple(torch.argsort(-importance[name], stable=True).tolist()) for name in space.ids)
        return cls(space.ids, order)

    def keep(self, counts: Counts) -> dict[str, tuple[int, ...]]:
        """`{group id: kept unit indices, ascending}`."""
        pairs = zip(self.ids, self.order, counts.tolist(), strict=True)
        return {name: tuple(sorted(order[:count])) for name, order, count in pairs}


@dataclass
class Evaluator:
    """Scores counts; picklable, so that it can stand in worker processes.

    Args:
        model: the original network, in eval mode; never changed.
        fit: batches (B, C, H, W) of the train split that batch-norm statistics are fitted to.
        x, y: scoring images (N, C, H, W) and labels (N,) of the search split, in an order whose prefixes are
            as balanced as the whole.
        score: a name in SCORES.
    """

    model: nn.Module
    graph: ChannelGraph
    ranking: Ranking
    fit: Sequence[Tensor]
    x: Tensor
    y: Tensor
    score: str = "divergence"
    batch: int = 256

    def __post_init__(self) -> None:
        self.model.eval()
        with torch.inference_mode():
            logits = [self.model(part) for part in self.x.split(self.batch)]
        self.teacher = torch.cat(logits).clone()
        self._caster = Caster(self.model, self.graph, self.ranking.ids)

    def candidate(self, counts: Counts) -> nn.Module:
        """The cut network with re-fitted batch-norm statistics, in eval mode; valid until the next call."""
        model = self._caster.cast(self.ranking.keep(counts))
        reestimate_batchnorm(model, self.fit)
        return model

    def __call__(self, counts: Counts, bar: float = float("-inf")) -> Outcome:
        """Score counts (G,); below `bar` after the first rung the rest of the images is spared."""
        start = time.perf_counter()
        model = self.candidate(counts)
        edge = max(1, round(len(self.x) * FIRST_RUNG))
        rung, right = self._sums(model, 0, edge)
        total, seen, stopped = rung, edge, rung / edge < bar
        if not stopped and edge < len(self.x):
            more, also_right = self._sums(model, edge, len(self.x))
            total, right, seen = total + more, right + also_right, len(self.x)
        seconds = time.perf_counter() - start
        return Outcome(total / seen, rung / edge, right / seen, seen, stopped, seconds)

    def base(self) -> tuple[float, float]:
        """Score and accuracy of the original."""
        labels = self.y
        score = SCORES[self.score](self.teacher, self.teacher, labels).double().mean().item()
        return score, correctness(self.teacher, self.teacher, labels).double().mean().item()

    def _sums(self, model: nn.Module, first: int, last: int) -> tuple[float, float]:
        """Sum of scores and number of right answers over images first..last."""
        total = right = 0.0
        with torch.inference_mode():
            for low in range(first, last, self.batch):
                part = slice(low, min(low + self.batch, last))
                logits, labels = model(self.x[part]), self.y[part]
                values = SCORES[self.score](logits, self.teacher[part], labels).double()
                total += torch.nan_to_num(values, nan=-1e3, neginf=-1e3).sum().item()
                right += correctness(logits, logits, labels).sum().item()
        return total, right
