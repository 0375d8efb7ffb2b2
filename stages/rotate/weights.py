"""The tensors of writers and readers in another basis; the function stays."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stages.rotate.trunks import Writer

Tensors = Mapping[str, Tensor]


def written(basis: Tensor, writer: Writer, tensors: Tensors, of_output: Tensor | None) -> Tensors:
    """New tensors of a writer, float64, so that its channels y become `basis` · y.

    With a batch norm y = D (z - μ) + β, where z is what the layer gives and D = γ/σ. D goes into
    the layer, and the norm gets the statistics that the new z has: training goes on from there as
    from any trained network.

    Args:
        basis: (C, C), float64. of_output: covariance (C, C) of z; None without a norm.
    """
    old = {name: tensors[name].detach().double() for name in writer.names}
    norm = writer.norm
    if norm is None or of_output is None:
        return {name: _mixed(basis, tensor) for name, tensor in old.items()}
    mix = basis * (old[norm.weight] * (old[norm.var] + norm.eps).rsqrt())
    scale = _usual_length(_mixed(mix, old[writer.weight]), old[writer.weight])
    mix = scale[:, None] * mix
    new = {name: _mixed(mix, old[name]) for name in (writer.weight, writer.bias, norm.mean) if name}
    var = ((mix @ of_output) * mix).sum(1).clamp_min(0)
    gain = (var + norm.eps).sqrt() / scale
    return {**new, norm.var: var, norm.weight: gain, norm.bias: basis @ old[norm.bias]}


def read_in(basis: Tensor, weight: Tensor) -> Tensor:
    """The weight (out, C, …) of a layer that reads channels in an orthogonal basis, float64."""
    return torch.einsum("oc...,dc->od...", weight.detach().double(), basis)


def _mixed(matrix: Tensor, tensor: Tensor) -> Tensor:
    """`matrix` times a tensor (C, …)."""
    return torch.tensordot(matrix, tensor, 1)


def _usual_length(rows: Tensor, like: Tensor) -> Tensor:
    """Factors (C,) that give each row the mean length of rows before.

    The norm undoes them; but the shorter a row, the more a step of training turns it.
    """
    lengths, usual = rows.flatten(1).norm(dim=1), like.flatten(1).norm(dim=1).square().mean().sqrt()
    dead = lengths <= torch.finfo(torch.float32).eps * usual
    return torch.where(dead, 1, usual / torch.where(dead, 1, lengths))
