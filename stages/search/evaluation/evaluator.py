"""What a candidate is worth: cut, recovered cheaply, compared with the original on images.

How far a network is from the original as cut says little about what recovery will make of it;
weights by least squares from the original's moments, or a few steps of distillation, say a lot
(`tests/bench/fidelity.py`). Rungs of a few images spare most candidates the rest (successive
halving, Jamieson & Talwalkar, arXiv 1502.07943; thresholds: stages/search/evaluation/halving.py):

    reconstruction -> 256 images --threshold--> score on all images

Where candidates are distilled, that comes behind the rungs, and a rung of 64 images first. A
reconstructed network keeps the original's batch-norm variances and shifted means: a regression's
output varies less than what it imitates, and statistics of its own would blow its error up again.
Without reconstruction the statistics are fitted to train images before the score, and at a rung
batch norms use those of the very images they see, which saves the fitting.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.counts import Counts
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.rebuild import rebuild
from pipeline.config.search import EvaluationConfig
from pipeline.training.evaluate import norms_of, reestimate_batchnorm
from stages.reconstruct.independent import Moments
from stages.search.evaluation.candidate_network import CandidateNetwork
from stages.search.evaluation.scores import SCORES, correctness
from stages.search.evaluation.shared_prefix import SharedPrefix
from stages.search.evaluation.short_distillation import batch_statistics, distill, distill_batches
from stages.search.evaluation.trial import Outcome
from stages.search.space.ranking import Ranking

WORST = -1e3  # score of an output that is no number
BATCH = 256  # images of one forward pass
LOOK = 4  # a rung takes at least this part of the images where no training follows


class Evaluator:
    """Scores counts; picklable, so that it can stand in worker processes.

    Args:
        model: what candidates are cut from, in eval mode; never changed.
        teacher: the original network, in eval mode, which candidates are compared with.
        moments: of `model`, with which candidates are reconstructed; absent: they are not.
        fit: batches (B, C, H, W) of the train split: for distillation, and what batch-norm
            statistics are fitted to where nothing is reconstructed.
        x, y: scoring images (N, C, H, W) and labels (N,) of the search split, in an order whose
            prefixes are about as balanced as the whole.
        score: a name in SCORES.
        steps: of distillation that a candidate gets before its score.
        rules: rungs and the recipe of that distillation.
        alike: whether candidates change little each, so that what they share is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        ranking: Ranking,
        *,
        teacher: nn.Module,
        fit: Sequence[Tensor],
        x: Tensor,
        y: Tensor,
        moments: Moments | None = None,
        score: str = "divergence",
        steps: int = 0,
        rules: EvaluationConfig | None = None,
        alike: bool = False,
    ) -> None:
        self.ranking, self.fit, self.x, self.y = ranking, fit, x, y
        self.moments = moments
        self.score, self.steps, self.rules = score, steps, rules or EvaluationConfig()
        self.rungs = rung_sizes(len(x), trained=steps > 0, rules=self.rules)
        with torch.inference_mode():
            answers = [teacher(part) for part in x.split(BATCH)]
        self.answers = torch.cat(answers).clone()  # cat of one part is that inference tensor
        """The original's logits (N, classes)."""
        self.distill_batches = (
            distill_batches(teacher, fit, self.rules.step_images) if steps else []
        )
        refitted = moments.refitted if moments else ()
        self.candidate_network = CandidateNetwork(model, graph, ranking.ids, refitted)
        self._norms = norms_of(self.candidate_network.network)
        # without steps or norms of its own, a candidate runs as it was resized
        self.alike = alike and not steps and moments is not None
        self._parts: tuple[Tensor, ...] = ()
        self._prefix: SharedPrefix | None = None

    def __call__(self, counts: Counts, thresholds: Sequence[float] = ()) -> Outcome:
        """Score counts (G,).

        Args:
            thresholds: one a rung; a candidate below it is not promoted and the rest is spared.
                Without thresholds there are no rungs.
        """
        start = time.perf_counter()
        model = self._resized(counts)
        rungs: list[float] = []
        for images, threshold in zip(self.rungs, thresholds, strict=False):
            score, accuracy = self._at_rung(model, images)
            rungs.append(score)
            if score < threshold:
                seconds = time.perf_counter() - start
                return Outcome(score, tuple(rungs), accuracy, images, True, seconds)
        model = self._recovered(model)
        logits = self._with_prefix(model) if self.alike else self._logits(model)
        score, accuracy = self._compared(logits)
        seconds = time.perf_counter() - start
        return Outcome(score, tuple(rungs), accuracy, len(self.x), False, seconds)

    def _logits(self, model: nn.Module) -> Tensor:
        with torch.inference_mode():
            return torch.cat([model(part) for part in self.x.split(BATCH)])

    def _with_prefix(self, model: nn.Module) -> Tensor:
        """The same, from what this candidate shares with those before."""
        if self._prefix is None:  # here, since it is not sent to worker processes
            self._parts = self.x.split(BATCH)
            self._prefix = SharedPrefix(self._parts)
        with torch.no_grad(), self._prefix.of(model, self.candidate_network.changed):
            return torch.cat([model(part) for part in self._parts])

    def __getstate__(self) -> dict[str, Any]:
        # answers are known by where tensors are in this process
        return {**self.__dict__, "_parts": (), "_prefix": None}

    def candidate(self, counts: Counts) -> nn.Module:
        """The cut network as it is scored, in eval mode; valid until the next call."""
        return self._recovered(self._resized(counts))

    def of_original(self) -> tuple[float, float]:
        """Score and accuracy of the original."""
        return self._compared(self.answers)

    def _resized(self, counts: Counts) -> nn.Module:
        """The cut network with the weights that it has at its rungs."""
        keep = self.ranking.keep(counts)
        tensors = self.moments.tensors_after(keep) if self.moments else None
        return self.candidate_network.resize(keep, tensors)

    def _recovered(self, model: nn.Module) -> nn.Module:
        """After distillation, and with fitted batch-norm statistics where none were kept."""
        own_statistics = self.moments is None
        if self.steps:
            model = rebuild(model, {}, ())  # the candidate network shares tensors with the original
            norms = norms_of(model) if own_statistics else ()
            distill(model, self.distill_batches, self.steps, self.rules, norms)
        if own_statistics:
            reestimate_batchnorm(model, self.fit)
        return model

    def _at_rung(self, model: nn.Module, images: int) -> tuple[float, float]:
        """Mean score and accuracy on the first images; where statistics are their own, those of
        one batch.
        """
        norms = self._norms if self.moments is None else ()
        parts = self.x[:images].split(images if norms else BATCH)
        with batch_statistics(norms), torch.inference_mode():
            return self._compared(torch.cat([model(part) for part in parts]))

    def _compared(self, logits: Tensor) -> tuple[float, float]:
        """Mean score and accuracy of logits (n, classes) of the first n images."""
        answers, labels = self.answers[: len(logits)], self.y[: len(logits)]
        values = SCORES[self.score](logits, answers, labels).double()
        values = torch.nan_to_num(values, nan=WORST, neginf=WORST)
        return values.mean().item(), correctness(logits, answers, labels).double().mean().item()


def rung_sizes(images: int, *, trained: bool, rules: EvaluationConfig) -> tuple[int, ...]:
    """How many of the scoring images each rung takes.

    Args:
        trained: whether distillation follows; without it, rungs that would take most of the
            images spare nothing and are left out, and so are those of few: they cost as much as the
            weights that a candidate gets first, and rank what has them poorly.
    """
    pairs = zip(rules.rungs, rules.rung_shares, strict=True)
    sizes = [max(least, round(images * share)) for least, share in pairs]
    low, high = (0, images) if trained else (images // LOOK, images // 2)
    return tuple(size for size in sizes if low <= size <= high)
