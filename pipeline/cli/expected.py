"""What a run is going to take, about: minutes by the speed of its network, and memory."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.cli import init_config
from pipeline.cli.init_seen import TIMED, LookedAt
from pipeline.config.schema import Config
from pipeline.data.card import DataCard
from pipeline.training.evaluate import device_of

if TYPE_CHECKING:
    from pipeline.run.step import Step

_LAST = "export to report"
_FITTED = 8  # activations of the largest size that least squares hold of each image, about
_TABLES = 1 << 30  # bytes of activations that the loss tables hold at most


@dataclass(frozen=True)
class Expected:
    """Figures of a run, about.

    Attributes:
        minutes: by stage, or stages, of those that would run.
        at_most: of these stages it is not known before whether they are needed.
        memory_bytes: that the process takes at most.
    """

    minutes: dict[str, float]
    memory_bytes: int
    at_most: tuple[str, ...] = ()

    def __str__(self) -> str:
        sure = {stage: took for stage, took in self.minutes.items() if stage not in self.at_most}
        parts = ", ".join(f"{stage} {took:g}" for stage, took in sure.items() if took)
        whole = max(1, round(sum(sure.values())))
        more = [f"{self.minutes[stage]:g} more for {stage}" for stage in self.at_most]
        needed = f", {' and '.join(more)} where accuracy is missing" if more else ""
        return (
            f"expected about {whole:,} min on this machine as busy as it is ({parts}){needed}, and "
            f"{self.memory_bytes / 1e9:.1f} GB of memory"
        )


def expect(looked_at: LookedAt, card: DataCard, config: Config, steps: Sequence[Step]) -> Expected:
    """What the stages that would run take, of a network that was looked at."""
    minutes = init_config.minutes(card, looked_at.graph, looked_at.speed, config)
    found = _of_steps(minutes, steps)
    auto = config.distill.epochs == "auto" and found.get("distill") == minutes["distill"] > 0
    at_most = ("distill",) if auto else ()
    return Expected(found, _memory(looked_at.model, card, config, steps), at_most)


def _of_steps(minutes: dict[str, float], steps: Sequence[Step]) -> dict[str, float]:
    """Of the stages that would run; what was made before takes what it took."""
    parts: dict[str, list[Step]] = {}
    for step in steps:
        name = step.stage.name.rpartition("/")[2]
        parts.setdefault(_part_of(name, minutes), []).append(step)
    found = {}
    for part, members in parts.items():
        known = [s.manifest["duration_s"] / 60 for s in members if s.manifest is not None]
        again = [step for step in members if step.action == "run"]
        if again and len(known) == len(members):
            known = [s.manifest["duration_s"] / 60 for s in again if s.manifest is not None]
            found[part] = round(sum(known), 1)
        elif again:
            found[part] = minutes[part] * (1 if part == _LAST else len(again))
    return {part: found[part] for part in minutes if part in found}


def _part_of(stage: str, minutes: dict[str, float]) -> str:
    """What the minutes of a stage are counted with: tracing and rotating belong to the search."""
    with_search = ("trace", "rotate", "prune")
    return stage if stage in minutes else "search" if stage in with_search else _LAST


def _memory(model: nn.Module, card: DataCard, config: Config, steps: Sequence[Step]) -> int:
    """Bytes: of this process, which has trained a step, and of what grows with images and batches.

    Images are held as bytes up to `data.in_memory_mb`; a training step keeps the activations of its
    batch, the loss tables those of the original, least squares a few of the largest at once. What
    lies on a GPU is not counted.
    """
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    names = {step.stage.name.rpartition("/")[2] for step in steps if step.action == "run"}
    pixels = sum(card.images.values()) * torch.Size(card.image_shape).numel()
    held = min(pixels, config.data.in_memory_mb * 1_000_000)
    kept, largest = _activations(model, card.image_shape)
    trains = config.distill.mode != "bn_only" and config.distill.epochs != 0
    batches = [TIMED]
    if "pretrain" in names and config.model.weights is None:
        batches.append(config.pretrain.batch_size)
    if "distill" in names and trains:
        batches.append(config.distill.batch_size)
    train = card.images["train"]  # the search split is hardly larger
    fitted = _FITTED * largest * min(config.reconstruct.images, train)
    tables = kept * min(config.search.table.images, train)
    grows = [
        kept * (max(batches) - TIMED),
        min(fitted, config.reconstruct.memory_mb << 20) * ("reconstruct" in names),
        min(tables, _TABLES) * ("search" in names),
    ]
    if device_of(model).type != "cpu":
        return int(now + held)
    return int(now + held + max(grows))


def _activations(model: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Bytes an image that a training step keeps, and those of the largest of its tensors."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    x = torch.zeros(2, *shape, device=device_of(model))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = model(x)  # alive until the sizes are counted, so that none is freed and used again
    found = [size // len(x) for at, size in sizes.items() if at not in own]
    del scores
    return sum(found), max(found, default=0)
