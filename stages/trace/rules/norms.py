"""Normalisation and PReLU: parameters join the channels they scale; statistics across channels
freeze them.
"""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Activation, Bound, Parameter, Result
from stages.trace.rules.computed_weights import standardised


def per_channel(state: Pass, bound: Bound) -> Result:
    """Batch and instance norm: every channel for itself."""
    value = bound["input"]
    if isinstance(value, Parameter):
        return standardised(state, bound)
    parameters = [bound.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    labels = value.along(1) if isinstance(value, Activation) and len(value.shape) > 1 else None
    if labels is None:
        return state.stuck([value, parameters], "channels lie along another dimension")
    for parameter in parameters:
        if isinstance(parameter, Activation):
            return state.stuck([value, parameters], "statistics computed in forward")
        state.read(parameter, 0, labels)
    # affine=False: the running mean then says whose norm it is
    named = next((parameter for parameter in parameters if parameter is not None), None)
    state.width(state.owner(named, _NormBase), "num_features", labels)
    return value


def group_norm(state: Pass, bound: Bound) -> Result:
    """Statistics over blocks of channels: a whole block is one unit, so that the others keep
    their statistics.
    """
    value, groups = bound["input"], bound["num_groups"]
    parameters = [bound.get("weight"), bound.get("bias")]
    labels = value.along(1) if isinstance(value, Activation) else None
    if labels is None:
        return state.stuck([value, parameters], "channels lie along another dimension")
    owner = state.owner(parameters[0], nn.GroupNorm)
    blocks = labels.reshape(groups, -1)
    if groups == 1 and state.open_statistics:
        state.labels.open_inexact(labels)
    elif groups == 1:
        return state.stuck([value, parameters], "statistics over all channels would change")
    else:
        state.labels.tie(blocks, blocks[:, :1])
        labels = np.repeat(blocks[:, 0], blocks.shape[1])
        state.width(owner, "num_groups", blocks[:, 0].copy())
    for parameter in parameters:
        state.read(parameter, 0, labels)
    state.width(owner, "num_channels", labels)
    return Activation(value.shape, 1, labels)


def layer_norm(state: Pass, bound: Bound) -> Result:
    """Layer and RMS norm over the last dimensions."""
    value, shape = bound["input"], bound["normalized_shape"]
    parameters = [bound.get("weight"), bound.get("bias")]
    if not isinstance(value, Activation):
        return state.stuck([value, parameters], "normalised parameter")
    first = len(value.shape) - len(shape)
    if value.dim is None and value.vector[0] <= 0:
        return value
    if value.dim is not None and value.dim < first:
        for parameter in parameters:
            if parameter is not None:
                state.pin(parameter, state.why("scales positions, not channels"))
        return value
    if not state.open_statistics or value.dim is None:
        return state.stuck([value, parameters], "statistics over all channels would change")
    state.labels.open_inexact(value.vector)
    for parameter in parameters:
        state.read(parameter, value.dim - first, value.vector)
    owner = state.owner(parameters[0], (nn.LayerNorm, nn.RMSNorm))
    state.width(owner, f"normalized_shape.{value.dim - first}", value.vector)
    return value


def prelu(state: Pass, bound: Bound) -> Result:
    """One slope for all channels, or one each."""
    value, weight = bound["self"], bound["weight"]
    labels = value.along(1) if isinstance(value, Activation) and len(value.shape) > 1 else None
    if max(weight.shape, default=1) == 1:
        return value
    if labels is None:
        return state.stuck([value, weight], "channels lie along another dimension")
    state.read(weight, 0, labels)
    state.width(state.owner(weight, nn.PReLU), "num_parameters", labels)
    return value


RULES = {
    **dict.fromkeys(("batch_norm", "instance_norm"), per_channel),
    "group_norm": group_norm,
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "prelu": prelu,
}
