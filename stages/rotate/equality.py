"""Whether two networks are the same function: their outputs on a few images in float64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.channels.rebuild import named_tensors, rebuild
from stages.trace.capture.calls import tensors_of
from stages.trace.capture.model_state import set_training


class Reference:
    """A network in float64, and what it gives.

    Args:
        images: (N, C, H, W).
    Raises:
        Exception: whatever the network raises when it does not run in float64.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        tensors = named_tensors(model).items()
        wide = {name: t.detach().double() for name, t in tensors if t.is_floating_point()}
        self.network = rebuild(model, wide, ())
        self.images = images.double()
        self.outputs = _run(self.network, self.images)

    def difference(self, changed: Mapping[str, Tensor]) -> float:
        """Largest difference to the outputs with other tensors, relative to the largest output;
        infinite where an output is not finite.
        """
        outputs = _run(rebuild(self.network, changed, ()), self.images)
        return max(
            (_relative(a, b) for a, b in zip(outputs, self.outputs, strict=True)), default=0.0
        )


def _run(network: nn.Module, images: Tensor) -> list[Tensor]:
    set_training(network, False)
    torch.manual_seed(0)
    with torch.no_grad():
        return [tensor.double() for tensor in tensors_of(network(images.clone()))]


def _relative(found: Tensor, wanted: Tensor) -> float:
    scale = float(wanted.abs().max())
    worst = float((found - wanted).abs().max()) / (scale or 1.0)
    return worst if worst == worst else float("inf")
