"""What the stages take at their peak, about, where they compute: in bytes, from figures of the
network, so that it can be said on any machine for any device.

Activations are those of float32 and of the network before any cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipeline.config.schema import Config, TrainingSection
from pipeline.data.card import DataCard
from pipeline.data.prepare_encoded import LARGEST_HELD
from pipeline.training.activations import Activations, activations_of
from pipeline.training.evaluate import device_of
from stages.prune.importance import taylor
from stages.reconstruct import independent
from stages.reconstruct.forward import Forward, survey
from stages.reconstruct.patches import Sampling
from stages.reconstruct.units import MOST
from stages.search.evaluation import shared_prefix
from stages.search.evaluation.evaluator import BATCH, rung_sizes
from stages.search.problem import OBS

if TYPE_CHECKING:
    from pipeline.run.step import Step

_FITTED = 8  # activations of the largest size that least squares hold of each image, about
_COPIES = 2.5  # of a layer's rows while its ridge is chosen: the rows, and both halves of them
_INVERSES = 5  # float64 matrices of a layer's size while its units are ranked
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Taken:
    """Bytes of one stage at its peak.

    Attributes:
        gpu: on a GPU: weights, activations, statistics, images.
        cpu: the same where it computes on the CPU, with the images that it draws there.
        drawn: of images that lie on the CPU while a GPU computes.
    """

    gpu: int
    cpu: int
    drawn: int = 0


@dataclass(frozen=True)
class Estimate:
    """Estimates what stages take of one network.

    Attributes:
        weights: bytes of all parameters and buffers.
        image: bytes of one image in float32.
        train, search: images of these splits.
        held: bytes of the images that lie decoded in memory, and on the device; 0: they stream.
    """

    weights: int
    image: int
    train: int
    search: int
    held: int
    activations: Activations
    forward: Forward
    config: Config

    @classmethod
    def of(cls, model: nn.Module, card: DataCard, config: Config) -> Estimate:
        """Looks at the network with two images, on the device that it lies on, in its own mode."""
        x = torch.zeros(2, *card.image_shape, device=device_of(model))
        tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
        train, search = split_sizes(card, config)
        return cls(
            weights=sum(t.numel() * t.element_size() for t in tensors.values()),
            image=_FLOAT * prod(card.image_shape),
            train=train,
            search=search,
            held=held_bytes(card, config),
            activations=activations_of(model, x),
            forward=survey(model, (x,)),
            config=config,
        )

    def stages(self, steps: Sequence[Step]) -> dict[str, Taken]:
        """Of those that would run and compute with torch on the device, by name."""
        names = {step.stage.name.rpartition("/")[2] for step in steps if step.action == "run"}
        found = {name: estimate(self) for name, estimate in _STAGES.items() if name in names}
        if self.held:  # drawn from what lies on the GPU already
            return {n: Taken(taken.cpu + self.held, taken.cpu) for n, taken in found.items()}
        return found

    def pretrain(self) -> Taken:
        """Training, or the score of weights that are given."""
        if self.config.model.weights is not None:
            return _same(self.weights + self._answering(self.search))
        return _same(self._training(self.config.pretrain))

    def rotate(self) -> Taken:
        """Images on the device, and covariances of some at a time."""
        images = self.image * min(self.config.rotate.images, self.train)
        passed = 32 * self.activations.answering  # about as many as it takes at 224 px
        return _same(3 * self.weights + images + passed if images else 0, images)

    def search_stage(self) -> Taken:
        """The largest of what its phases take beside the images and statistics that all share."""
        search = self.config.search
        fit = min(search.fit_images, self.train)
        trial, table = (min(n, self.search) for n in (search.images, search.table.images))
        final = min(search.evaluation.final_images * search.images, self.search)
        peak = stored = ranked = 0
        if search.reconstruct or search.criterion == OBS:
            peak, stored, ranked = self._moments(fit)
        phases = [
            peak,
            stored + 2 * self.weights + self._taylor(fit),
            stored + ranked,
            stored + 2 * self.weights + table * self.image + self._prefixed(table),
            stored + 3 * self.weights + trial * self.image + self._trial(trial),
            stored + 4 * self.weights + (trial + final) * self.image + self._final(final),
        ]
        if search.budget.accuracy_drop is not None:
            phases.append(stored + self.reconstruct().cpu)
        drawn = (fit + trial + 2 * final) * self.image
        return _same(self.weights + fit * self.image + max(phases), drawn)

    def reconstruct(self) -> Taken:
        """Least squares within `reconstruct.memory_mb`, and scores of three networks."""
        settings = self.config.reconstruct
        count = min(settings.images, self.train)
        fitted = min(_FITTED * self.activations.largest * count, settings.memory_mb << 20)
        used = min(count, self.forward.affordable(settings.memory_mb << 20))
        working = max(used * self.image + fitted, self._answering(self.search))
        taken = 5 * self.weights + working
        return Taken(taken, taken + (count - used) * self.image, count * self.image)

    def distill(self) -> Taken:
        """A teacher beside the training of what is left, as if nothing were cut; before it, the
        images that batch norms are fitted to.
        """
        section = self.config.distill
        drawn = 2 * min(section.bn_images, self.train) * self.image  # in order, and shuffled
        fitted = 3 * self.weights + self._answering(max(self.train, self.search))
        trained = 0
        if section.mode != "bn_only" and section.epochs != 0 and section.weights is None:
            trained = 2 * self.weights + self._training(section)
        return Taken(max(fitted, trained), max(fitted + drawn, trained), drawn)

    def _training(self, section: TrainingSection) -> int:
        """Weights, gradients, momentum, the best weights and a checkpoint; and a step, or the
        scores after an epoch.
        """
        batch = min(section.batch_size, self.train)
        step = batch * (2 * self.image + self.activations.learning)
        return (5 + bool(section.ema)) * self.weights + max(step, self._answering(self.search))

    def _answering(self, images: int) -> int:
        """A pass over images in the usual batches."""
        return min(images, BATCH) * (self.activations.answering + self.image)

    def _final(self, images: int) -> int:
        """The score of a finalist; before it, a copy of the images in another order."""
        return max(self._answering(images), images * self.image)

    def _moments(self, fit: int) -> tuple[int, int, int]:
        """Of the statistics of all layers: the peak while they are taken; what stays of them; and
        what ranking units by them takes.
        """
        count = min(fit, max(2, self.forward.affordable(independent.MAX_BYTES)))
        sampling, stored, rows, ranked = Sampling(max(1, count)), 0, 0, 0
        for use in self.forward.uses:
            if use.kind == "norm" or use.depthwise:
                continue
            own = min(sampling.wanted(use), count * prod(use.space)) * use.unknowns
            square = use.unknowns**2
            stored += _FLOAT * use.groups * min(own, square)
            rows = max(rows, _FLOAT * use.groups * own)
            if use.unknowns <= MOST:
                ranked = max(ranked, use.groups * square * 2 * _FLOAT)
        # a layer's rows are gathered beside its input and what a branch still wants
        gathered = 2 * count * self.activations.largest + round(_COPIES * rows)
        peak = stored + max(count * self.activations.answering, gathered)
        return peak, stored, _INVERSES * ranked

    def _taylor(self, fit: int) -> int:
        """The gradients of a batch: of all images at once, or of as many as it may take."""
        if self.config.search.criterion not in (OBS, "taylor"):
            return 0
        return min(min(fit, BATCH) * self.activations.learning, taylor.MAX_BYTES) + 2 * self.weights

    def _prefixed(self, images: int) -> int:
        """A pass, and the answers of the layers that candidates share."""
        answers = min(images * self.activations.kept, shared_prefix.MAX_BYTES)
        return self._answering(images) + answers

    def _trial(self, images: int) -> int:
        """One candidate's score, and the steps that it may be trained for before."""
        search, each = self.config.search, self.activations
        scored = self._answering(images)
        if not search.reconstruct:  # rungs have statistics of one batch
            rungs = rung_sizes(images, trained=search.distill_steps > 0, rules=search.evaluation)
            scored = max([scored, *(rung * each.answering for rung in rungs)])
        if not search.distill_steps:
            return scored
        return max(scored, search.evaluation.step_images * each.learning + 3 * self.weights)


def _same(taken: int, drawn: int = 0) -> Taken:
    """Of a stage that takes as much on either device."""
    return Taken(taken, taken, drawn)


_STAGES = {
    "pretrain": Estimate.pretrain,
    "rotate": Estimate.rotate,
    "search": Estimate.search_stage,
    "reconstruct": Estimate.reconstruct,
    "distill": Estimate.distill,
}


def split_sizes(card: DataCard, config: Config) -> tuple[int, int]:
    """Images of the train and of the search split, about."""
    train = min(card.images["train"], config.data.train_limit or card.images["train"])
    if "search" in card.images:
        return train, card.images["search"]
    held_out = round(train * config.data.search_fraction)
    return train - held_out, held_out


def held_bytes(card: DataCard, config: Config) -> int:
    """Of all splits as uint8 pixels; 0 where they are streamed."""
    pixels = sum(card.images.values()) * prod(card.image_shape)
    small = max(card.image_shape[1:]) <= LARGEST_HELD
    return pixels if small and pixels <= config.data.in_memory_mb * 1_000_000 else 0
