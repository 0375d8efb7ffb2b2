"""How many bytes of activations a network takes for an image, learning and answering."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# of the largest size: what a pass over a ResNet-50 of 224 px takes at its peak
_ANSWERING = 5
_LEARNING = 8


@dataclass(frozen=True)
class Activations:
    """Bytes an image.

    Attributes:
        kept: by a training step, from the way forward until the way back.
        largest: of the largest of those tensors.
    """

    kept: int
    largest: int

    @property
    def answering(self) -> int:
        """Of a pass without gradients: input, output and what a branch still wants."""
        return _ANSWERING * self.largest

    @property
    def learning(self) -> int:
        """Of a training step: what it keeps, and the gradients of a few activations at once."""
        return self.kept + _LEARNING * self.largest


def activations_of(model: nn.Module, x: Tensor) -> Activations:
    """Of one pass of `model` over a few images x (B, C, H, W) on its device; nothing is changed."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()  # data_ptr() is not there for every tensor
        return tensor

    x = x.clone()  # a slice's storage is that of all images
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        scores = model(x)  # alive until the sizes are counted, so that none is freed and used again
    found = [size // len(x) for at, size in sizes.items() if at not in own]
    del scores
    return Activations(sum(found), max(found, default=0))
