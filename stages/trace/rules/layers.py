"""Weights: columns read the labels that arrive, rows produce new ones."""

from __future__ import annotations

from math import prod

import numpy as np
from torch import nn

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import (
    Activation,
    Argument,
    Bound,
    Parameter,
    Result,
    Vector,
)
from stages.trace.propagate.readings import Reading

Shape = tuple[int, ...]

# as in efficient channel attention
_ALONG = "its kernel runs along the channels, and a cut gives them other neighbours"
_TENSORS = (Activation, Parameter)
_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def convolution(state: Pass, bound: Bound) -> Result:
    """conv{1,2,3}d and conv_transpose{1,2,3}d, grouped and depthwise ones included."""
    value, weight, bias, groups = (
        bound["input"],
        bound["weight"],
        bound.get("bias"),
        bound["groups"],
    )
    transposed = state.call.name.startswith("conv_transpose") or bool(bound.get("transposed"))
    shape = state.call.shapes[0] or ()
    # from the end: one image alone has no batch dimension
    channel = len(shape) - (len(weight.shape) - 2) - 1
    # a transposed convolution applies its kernel once for each pixel of its input
    applied = (value.shape if transposed else shape) if isinstance(value, Activation) else shape
    positions = prod(applied) // applied[channel]
    arriving = value.along(channel) if isinstance(value, Activation) else None
    plain = _plain(weight) and (bias is None or _plain(bias))
    if plain and arriving is None and _pass_beside(value, weight, channel, shape):
        return _beside(state, value, weight, bias, positions * prod(weight.shape))
    if arriving is None or not plain:
        state.count_product(positions * prod(weight.shape))
        text = _ALONG if plain else "the weight is no plain parameter"
        return state.stuck([value, weight, bias], text)
    row, column = (1, 0) if transposed else (0, 1)
    owner = state.owner(weight, _CONVOLUTIONS)
    whole = groups > 1 and state.reading is Reading.OUTER
    # one input channel a group; a weight is (out, in / groups), a transposed (in, out / groups)
    if groups > 1 and weight.shape[column] * (1 if transposed else groups) == groups:
        leaving = _depthwise(state, weight, arriving, owner, transposed)
    elif not _has_rows(weight, row):
        state.count_product(positions * prod(weight.shape))
        return state.stuck([value, weight, bias], "the weight is broadcast over its outputs")
    elif whole:
        leaving = _whole_groups(state, weight, arriving, owner, groups, transposed)
    else:
        leaving = _grouped(state, weight, arriving, groups, row, column)
    layout = {"out_dim": row, "in_dim": column, "groups": groups}
    # label 0: the channels of a group that stays are as many as before
    blocks = [vector.reshape(groups, -1)[0] * (not whole) for vector in (leaving, arriving)]
    extents = (arriving, blocks[0]) if transposed else (leaving, blocks[1])
    state.count(weight, state.call.name, positions, extents, **layout)
    if bias is not None:
        state.read(bias, 0, leaving)
    state.width(owner, "in_channels", arriving)
    state.width(owner, "out_channels", leaving)
    return Activation(shape, channel, leaving)


def _pass_beside(value: Argument, weight: Parameter, channel: int, shape: Shape) -> bool:
    """Whether the channels lie along another dimension of which the kernel sees one at a time."""
    if not isinstance(value, Activation) or value.dim is None:
        return False
    along = value.dim - channel
    # along the images of a batch there is no kernel
    one = along < 0 or weight.shape[1 + along] == 1
    return one and shape[value.dim] == value.shape[value.dim]


def _depthwise(
    state: Pass, weight: Parameter, arriving: Vector, owner: str | None, transposed: bool
) -> Vector:
    """One input channel a group: its output channels are the same unit."""
    multiplier = weight.shape[1] if transposed else weight.shape[0] // len(arriving)
    leaving = np.repeat(arriving, multiplier)
    state.read(weight, 0, arriving if transposed else leaving)
    state.argument(owner, "groups", arriving)
    return leaving


def _grouped(
    state: Pass, weight: Parameter, arriving: Vector, groups: int, row: int, column: int
) -> Vector:
    """Equal positions of the groups are tied on both sides, so that all groups stay equally
    wide.
    """
    if groups > 1:
        state.labels.group_sites[state.call.site] = None
    blocks = arriving.reshape(groups, -1)
    state.labels.tie(blocks, blocks[:1])
    rows = state.rows(weight, row)
    if row == 0:
        state.read(weight, column, blocks[0])
        produced = rows.reshape(groups, -1)
        state.labels.tie(produced, produced[:1])
        return np.tile(produced[0], groups)
    state.read(weight, column, arriving)
    return np.tile(rows, groups)


def _whole_groups(
    state: Pass,
    weight: Parameter,
    arriving: Vector,
    owner: str | None,
    groups: int,
    transposed: bool,
) -> Vector:
    """All channels of a group, on both sides, are one unit, so that the others stay as they are."""
    blocks = arriving.reshape(groups, -1)
    state.labels.tie(blocks, blocks[:, :1])
    units = blocks[:, 0].copy()
    rows = weight.shape[1] if transposed else weight.shape[0] // groups
    leaving = np.repeat(units, rows)
    state.read(weight, 0, np.repeat(units, blocks.shape[1]) if transposed else leaving)
    state.width(owner, "groups", units)
    return leaving


def linear(state: Pass, bound: Bound) -> Result:
    """input @ weight.T + bias over the last dimension."""
    return matrix(state, bound["input"], bound["weight"], bound.get("bias"), row=0)


def matrix(state: Pass, value: Argument, weight: Argument, bias: Argument, row: int) -> Result:
    """value @ weight + bias, `row` being the dimension of the weight that makes channels."""
    shape = state.call.shapes[0] or ()
    last = len(shape) - 1
    if (
        isinstance(value, Activation)
        and value.dim not in (None, last)
        and isinstance(weight, Parameter)
    ):
        return _beside(state, value, weight, bias, prod(value.shape[:-1]) * prod(weight.shape))
    plain = _plain(weight) and (bias is None or (_plain(bias) and len(bias.shape) == 1))
    if not isinstance(value, Activation) or not plain or not _has_rows(weight, row):
        if isinstance(weight, _TENSORS):
            state.count_product(prod(shape[:-1]) * prod(weight.shape))
        return state.stuck([value, weight, bias], "the weight is no plain parameter")
    arriving = value.along(last)
    assert arriving is not None
    state.read(weight, 1 - row, arriving)
    leaving = state.rows(weight, row)
    extents = (arriving, leaving) if row else (leaving, arriving)
    state.count(weight, "Linear", prod(shape[:-1]), extents, out_dim=row, in_dim=1 - row)
    if bias is not None:
        state.read(bias, 0, leaving)
    owner = state.owner(weight, nn.Linear)
    state.width(owner, "in_features", arriving)
    state.width(owner, "out_features", leaving)
    return Activation(shape, last, leaving)


def _beside(
    state: Pass, value: Activation, weight: Parameter, bias: Argument, times: int
) -> Activation:
    """A layer over another dimension than the channels (token mixing): channels pass, the layer
    keeps its widths.
    """
    reason = state.why("acts across positions, not channels")
    state.count_product(times // len(value.vector), value.vector, weight=weight)
    for parameter in (weight, bias):
        if isinstance(parameter, Parameter):
            state.pin(parameter, reason)
    return value.with_shape(state.call.shapes[0] or (), value.dim)


def _plain(parameter: Argument) -> bool:
    """Each of its first two dimensions is one of every stored tensor it comes from, or of none."""
    return isinstance(parameter, Parameter) and all(
        source.axis(dim) is not None or source.is_constant(dim)
        for source in parameter.sources
        for dim in range(min(len(parameter.shape), 2))
    )


def _has_rows(weight: Parameter, row: int) -> bool:
    return any(source.axis(row) is not None for source in weight.sources)


RULES = {
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
            "convolution"),
        convolution),
    "linear": linear,
}  # fmt: skip
