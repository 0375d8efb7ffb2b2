"""Optimal brain surgeon: what a unit is worth once the others have made up for it.

From second moments of what the layers see (`stages.reconstruct.units`; OSSCAR, arXiv 2403.12983).
The numbers order the units of one group; between groups they do not compare.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.errors import UsageError
from pipeline.modes import mode
from stages.reconstruct.independent import Moments
from stages.reconstruct.units import rank_units


def score_units(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[tuple[Tensor, Tensor]] | None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Squared error of the layers that read the group, after the unit and all less important ones
    are gone. Labels are not looked at.

    Raises:
        UsageError: no batches.
    """
    if batches is None:
        raise UsageError(
            "obs importance needs calibration batches", hint="pass batches=[(images, labels), …]"
        )
    device = next(model.parameters()).device
    images = torch.cat([x for x, _ in batches]).to(device)
    with mode(model, False):
        return of_moments(Moments(model, graph, images, seed=seed), graph)


def of_moments(moments: Moments, graph: ChannelGraph) -> dict[str, Tensor]:
    """The same from moments that are there; groups that no layer with moments reads are left
    out.
    """
    found = rank_units(moments, graph)
    return {name: scores for name, scores in found.items() if bool(scores.any())}
