"""What a candidate is worth: cut, trained for a few steps, compared with the original on fixed
images.

How far the cut network is from the original says little about what training will make of it, a few
steps of distillation say a lot (`tests/bench/fidelity.py`); they cost more than the score. Before
them come glances at a few of the images, after which most candidates are not carried on (successive
halving, Jamieson & Talwalkar, arXiv 1502.07943; by which bar: stages/search/halving.py):

    glance at 64 images --bar--> glance at 256 --bar--> distillation, statistics from the train
    split, all images

At a glance batch norms use the statistics of the very images they see, which saves fitting them
first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.channels.rebuild import rebuild
from pipeline.training.evaluate import reestimate_batchnorm
from stages.search.caster import Caster
from stages.search.space import Counts, Space
from stages.trace import ChannelGraph

STEP_IMAGES = 64  # of one step of distillation
RATE, WARMUP, TEMPERATURE = 0.02, 5, 2.0  # of those steps: SGD with momentum, linear warm-up
GLANCES = ((64, 1 / 16), (256, 1 / 4))  # images, and share of the scoring images: the larger counts
WORST = -1e3  # score of an output that is no number


@dataclass(frozen=True)
class Outcome:
    """Result of one evaluation.

    Attributes:
        score: higher is better; of all images, or of the last glance.
        rungs: scores of the glances, which decide about carrying on.
        accuracy: top-1 as a fraction of the images that `score` is of.
        images: their number.
        stopped: whether a bar ended the evaluation at a glance.
        seconds: wall time.
    """

    score: float
    rungs: tuple[float, ...]
    accuracy: float
    images: int
    stopped: bool
    seconds: float


def divergence(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """-KL(teacher || student) of the class probabilities, (N,): 0 for an unchanged network, in
    nats.
    """
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
        order = tuple(
            tuple(torch.argsort(-importance[name], stable=True).tolist()) for name in space.ids
        )
        return cls(space.ids, order)

    def keep(self, counts: Counts) -> dict[str, tuple[int, ...]]:
        """`{group id: kept unit indices, ascending}`."""
        pairs = zip(self.ids, self.order, counts.tolist(), strict=True)
        return {name: tuple(sorted(order[:count])) for name, order, count in pairs}


@dataclass
class Evaluator:
    """Scores counts; picklable, so that it can stand in worker processes.

    Args:
        model: the original network, in eval mode; never changed. fit: batches (B, C, H, W) of the
        train split that batch-norm statistics are fitted to. x, y: scoring images (N, C, H, W) and
        labels (N,) of the search split, in an order whose prefixes are
            as balanced as the whole.
        score: a name in SCORES.
        steps: of distillation on `fit` that a candidate gets before its score.
    """

    model: nn.Module
    graph: ChannelGraph
    ranking: Ranking
    fit: Sequence[Tensor]
    x: Tensor
    y: Tensor
    score: str = "divergence"
    steps: int = 0
    batch: int = 256

    def __post_init__(self) -> None:
        self.learn_from(self.model.eval())
        self._caster = Caster(self.model, self.graph, self.ranking.ids)
        self._norms = norms_of(self._caster.twin)

    def learn_from(self, teacher: nn.Module) -> None:
        """Measure candidates against this network, which is in eval mode; at first it is the
        original.
        """
        with torch.inference_mode():
            logits = [teacher(part) for part in self.x.split(self.batch)]
            lessons = [(part, teacher(part)) for part in self.fit] if self.steps else []
        self.teacher = torch.cat(logits).clone()
        pairs = (
            zip(x.split(STEP_IMAGES), y.clone().split(STEP_IMAGES), strict=True) for x, y in lessons
        )
        self._lessons = [pair for pair in itertools.chain.from_iterable(pairs) if len(pair[0]) > 1]

    def candidate(self, counts: Counts) -> nn.Module:
        """The cut network as it is scored, in eval mode; valid until the next call."""
        return self._recovered(self._caster.cast(self.ranking.keep(counts)))

    @property
    def glances(self) -> tuple[int, ...]:
        """How many images each glance takes; without training those that would take most of
        them spare nothing.
        """
        sizes = (max(least, round(len(self.x) * share)) for least, share in GLANCES)
        return tuple(size for size in sizes if size <= len(self.x) // (1 if self.steps else 2))

    def __call__(self, counts: Counts, bars: Sequence[float] = ()) -> Outcome:
        """Score counts (G,).

        Args:
            bars: one a glance; below it the rest is spared. Without bars there are no glances.
        """
        start = time.perf_counter()
        model = self._caster.cast(self.ranking.keep(counts))
        rungs: list[float] = []
        for images, bar in zip(self.glances, bars, strict=False):
            score, accuracy = self._glance(model, images)
            rungs.append(score)
            if score < bar:
                return Outcome(
                    score, tuple(rungs), accuracy, images, True, time.perf_counter() - start
                )
        model = self._recovered(model)
        with torch.inference_mode():
            logits = torch.cat([model(part) for part in self.x.split(self.batch)])
        score, accuracy = self._compared(logits)
        return Outcome(
            score, tuple(rungs), accuracy, len(self.x), False, time.perf_counter() - start
        )

    def _recovered(self, model: nn.Module) -> nn.Module:
        """After `steps` of distillation and with fitted batch-norm statistics; the model itself
        where steps is 0.
        """
        if self.steps:
            model = rebuild(model, {}, ())  # the twin shares tensors with the original
            distil(model, self._lessons, self.steps)
        reestimate_batchnorm(model, self.fit)
        return model

    def base(self) -> tuple[float, float]:
        """Score and accuracy of the original."""
        labels = self.y
        score = SCORES[self.score](self.teacher, self.teacher, labels).double().mean().item()
        return score, correctness(self.teacher, self.teacher, labels).double().mean().item()

    def _glance(self, model: nn.Module, images: int) -> tuple[float, float]:
        """Mean score and accuracy on the first images, batch norms by the statistics of that
        one batch.
        """
        with batch_statistics(self._norms), torch.inference_mode():
            return self._compared(model(self.x[:images]))

    def _compared(self, logits: Tensor) -> tuple[float, float]:
        """Mean score and accuracy of logits (n, classes) of the first n images."""
        teacher, labels = self.teacher[: len(logits)], self.y[: len(logits)]
        values = SCORES[self.score](logits, teacher, labels).double()
        values = torch.nan_to_num(values, nan=WORST, neginf=WORST)
        return values.mean().item(), correctness(logits, teacher, labels).double().mean().item()


def distil(model: nn.Module, lessons: Sequence[tuple[Tensor, Tensor]], steps: int) -> None:
    """Train `model` in place over lessons, again and again: images (B, C, H, W) and the teacher's
    logits (B, classes).

    On the softened divergence alone: a score must not depend on labels more than the user's choice
    of score does.
    """
    optimizer = torch.optim.SGD(
        model.requires_grad_(True).parameters(), RATE, momentum=0.9, nesterov=True, fused=True
    )
    with batch_statistics(norms_of(model)):
        for step, (x, wanted) in enumerate(itertools.islice(itertools.cycle(lessons), steps)):
            optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARMUP)
            student, teacher = (
                F.log_softmax(logits / TEMPERATURE, 1) for logits in (model(x), wanted)
            )
            loss = TEMPERATURE**2 * F.kl_div(
                student, teacher, reduction="batchmean", log_target=True
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Batch norms with running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def batch_statistics(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Normalise by each batch's own statistics and keep none; only batch norms are in training
    mode: no dropout.
    """
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.training, norm.track_running_stats = False, True
