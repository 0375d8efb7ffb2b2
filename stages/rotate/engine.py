"""A network with its linear trunks in another basis: principal components instead of channels.

The function is the same; but the last components carry next to nothing, so cutting them loses less
than cutting any channels does (SliceGPT, arXiv 2401.15024, does so below a norm of transformers).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.group import ChannelGroup
from pipeline.channels.rebuild import named_tensors, rebuild
from pipeline.errors import UsageError
from stages.rotate.equality import Reference
from stages.rotate.moments import take_moments
from stages.rotate.trunks import Trunk, find_trunks
from stages.rotate.weights import read_in, written
from stages.trace.capture.forward import capture_forward
from stages.trace.capture.model_state import preserved, set_training
from stages.trace.capture.quiet import quiet

TOLERANCE = 1e-9  # relative, in float64: round-off leaves 1e-13
LEAST_IMAGES = 8
COMPARED = 4  # images: in float64 a convolution takes ten times as long

_TINY = torch.finfo(torch.float64).tiny
_PRECISE = (torch.float32, torch.float64)


@dataclass(frozen=True)
class RotatedGroup:
    """A group whose units are components now.

    Attributes:
        variance: share of each component, (units,), falling, summing to 1.
    """

    id: str
    variance: tuple[float, ...]


@dataclass(frozen=True)
class Rotation:
    """A network in another basis.

    Attributes:
        left: why the other prunable groups keep their channels, {group id: reason}.
        difference: largest between the outputs of both networks in float64, relative to the
        largest output.
    """

    model: nn.Module
    groups: tuple[RotatedGroup, ...]
    left: dict[str, str]
    difference: float
    images: int
    seconds: float


def rotate(model: nn.Module, graph: ChannelGraph, images: Tensor) -> nn.Module:
    """The network in another basis; see `rotate_trunks`, which also says what became of each
    group.
    """
    return rotate_trunks(model, graph, images).model


def rotate_trunks(model: nn.Module, graph: ChannelGraph, images: Tensor) -> Rotation:
    """Give every group of a linear trunk the basis in which its last units matter least.

    A group is rotated where only convolutions, batch norms, linear layers, additions and means
    stand between the layers that write it and those that read it, which the calls of one forward
    pass tell. Both networks are run in float64: where outputs differ, the groups stay as they are.

    Args:
        model: not changed; the new one has the same modules, shapes and graph, in the same mode.
        images: (N, C, H, W) on any device, normalised, no labels.
    Raises:
        UsageError: fewer than 8 images; or the network does not run on them.
    """
    started = time.perf_counter()
    if len(images) < LEAST_IMAGES:
        raise UsageError(
            f"rotation needs at least {LEAST_IMAGES} images, got {len(images)}",
            hint="a thousand of the train split do well",
        )
    device = next((tensor.device for tensor in named_tensors(model).values()), None)
    images = images.to(device)
    with quiet(), preserved(model) as snapshot:
        trunks = find_trunks(capture_forward(model, (images[:2],), snapshot))
        free, left = _free_groups(model, graph, trunks)
        turns, unseen = _turns(model, free, images) if free else ([], {})
        kept, unequal, difference = _equal(model, turns, images[:COMPARED])
    return Rotation(
        rebuild(model, _as_in(model, _tensors(model, kept)), ()),
        tuple(RotatedGroup(turn.id, turn.variance) for turn in kept),
        {**left, **unseen, **unequal},
        difference,
        len(images),
        time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Turn:
    """A group and the basis it gets, (C, C) float64, a component in each row.

    `outputs` are covariances of what writers give to their norms, by the name of the running mean.
    """

    id: str
    trunk: Trunk
    basis: Tensor
    outputs: dict[str, Tensor]
    variance: tuple[float, ...]


def _free_groups(
    model: nn.Module, graph: ChannelGraph, trunks: Sequence[Trunk]
) -> tuple[dict[str, Trunk], dict[str, str]]:
    """{group id: its trunk} where the basis is free, and the reason for other prunable groups."""
    of_weight = {writer.weight: trunk for trunk in trunks for writer in trunk.writers}
    if any(t.is_floating_point() and t.dtype not in _PRECISE for t in model.parameters()):
        return {}, {group.id: "half precision is too coarse for it" for group in graph.prunable}
    free, left = {}, {}
    for group in graph.prunable:
        names = [m.parameter for m in group.members if m.parameter in of_weight and m.dim == 0]
        trunk = of_weight[names[0]] if names else None
        reason = "no convolution or linear layer alone writes it"
        if trunk is not None:
            reason = trunk.reason or _beside(group, trunk)
        if trunk is None or reason:
            left[group.id] = reason
        else:
            free[group.id] = trunk
    return free, left


def _beside(group: ChannelGroup, trunk: Trunk) -> str:
    """What of the group is not of the trunk, or the other way round; "" where they are the same."""
    wanted = {(name, 0) for writer in trunk.writers for name in writer.names}
    wanted |= {(name, 1) for name in trunk.readers}
    found = {(member.parameter, member.dim) for member in group.members}
    for name, _ in sorted(found ^ wanted):
        return f"{name} is not of both the group and what passes between its layers"
    units = np.arange(group.size)
    if trunk.size != group.size or any(
        not np.array_equal(table.indices[:, 0], units) or table.per_unit != 1
        for table in group.tables()
    ):
        return "a unit of it is not one channel"
    return "" if trunk.readers else "nothing reads it"


def _turns(
    model: nn.Module, free: Mapping[str, Trunk], images: Tensor
) -> tuple[list[_Turn], dict[str, str]]:
    """The bases of groups, and why others get none."""
    running = rebuild(model, {}, ())
    set_training(running, False)
    moments = take_moments(running, images, {n for t in free.values() for n in _watched(t)})
    turns, left = [], {}
    for group_id, trunk in free.items():
        if not moments.keys() >= _watched(trunk):
            left[group_id] = "its layers call no function of torch that could be watched"
            continue
        inputs = [moments[name].covariance for name in trunk.readers]
        if not all(bool(torch.isfinite(covariance).all()) for covariance in inputs):
            left[group_id] = "its values are not finite"
            continue
        outputs = {w.norm.mean: moments[w.norm.mean].covariance for w in trunk.writers if w.norm}
        # of equal weight, whatever the number of pixels: a trunk may be read at several strides
        spread, vectors = torch.linalg.eigh(torch.stack(inputs).sum(0))
        share = (spread.flip(0).clamp_min(0) / spread.sum().clamp_min(_TINY)).tolist()
        turns.append(_Turn(group_id, trunk, vectors.flip(1).mT, outputs, tuple(share)))
    return turns, left


def _watched(trunk: Trunk) -> set[str]:
    """Names of what must have moments."""
    return {*trunk.readers, *(writer.norm.mean for writer in trunk.writers if writer.norm)}


def _tensors(model: nn.Module, turns: Sequence[_Turn]) -> dict[str, Tensor]:
    """New tensors by name, float64, once these groups are turned."""
    found = {name: tensor.detach().double() for name, tensor in named_tensors(model).items()}
    changed: dict[str, Tensor] = {}
    for turn in turns:
        # a layer may read one of the groups and write another
        for name in turn.trunk.readers:
            changed[name] = read_in(turn.basis, {**found, **changed}[name])
        for writer in turn.trunk.writers:
            covariance = turn.outputs.get(writer.norm.mean) if writer.norm else None
            changed |= written(turn.basis, writer, {**found, **changed}, covariance)
    return changed


def _equal(
    model: nn.Module, turns: Sequence[_Turn], images: Tensor
) -> tuple[list[_Turn], dict[str, str], float]:
    """The turns that leave the function as it is, why others are not among them, and the
    largest difference.
    """
    if not turns:
        return [], {}, 0.0
    try:
        reference = Reference(model, images)
    except Exception:  # whatever a network raises that is not made for float64
        return [], dict.fromkeys((t.id for t in turns), "the network does not run in float64"), 0.0
    difference = reference.difference(_tensors(model, turns))
    if difference <= TOLERANCE:
        return list(turns), {}, difference
    kept: list[_Turn] = []
    left, largest = {}, 0.0
    for turn in turns:
        difference = reference.difference(_tensors(model, [*kept, turn]))
        if difference <= TOLERANCE:
            kept, largest = [*kept, turn], difference
        else:
            left[turn.id] = f"outputs would differ by {difference:.1e} in float64"
    return kept, left, largest


def _as_in(model: nn.Module, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the type and layout that `model` has them in."""
    tensors = named_tensors(model)
    return {name: torch.empty_like(tensors[name]).copy_(tensor) for name, tensor in changed.items()}
