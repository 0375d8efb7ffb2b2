"""New weights by least squares for what a cut has broken: no labels, no gradients.

Every layer gets the weights that best reproduce what the *original* layer gives, from the inputs
that are left (He et al., arXiv 1707.06168; ThiNet, 1707.06342; OSSCAR, 2403.12983).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.rebuild import named_tensors, rebuild
from pipeline.channels.surgery import sliced_tensors
from pipeline.errors import ArtifactError, UsageError
from stages.reconstruct.forward import LIVE, Forward, survey
from stages.reconstruct.kept import kept_outputs
from stages.reconstruct.patches import Sampling
from stages.reconstruct.sequential import LayerResult, Refit, layer_name
from stages.reconstruct.targets import Targets, picked

LEAST_IMAGES = 8  # of which two are held out
MAX_BYTES = 4 << 30

Progress = Callable[[int, int], None]


class TooFewImages(UsageError):
    """Fewer than `LEAST_IMAGES`."""

    def __init__(self, given: int) -> None:
        super().__init__(
            f"reconstruction needs at least {LEAST_IMAGES} images, got {given}",
            hint="a thousand of the train split do well",
        )


class TooLittleMemory(UsageError):
    """`needed` bytes are more than are allowed."""

    def __init__(self, needed: int, allowed: int) -> None:
        super().__init__(
            f"reconstruction of this network needs {needed >> 20} MiB at least,"
            f" {allowed >> 20} MiB are allowed",
            hint="allow more with max_bytes, or take smaller images",
        )
        self.needed = needed


@dataclass(frozen=True)
class Reconstruction:
    """A reconstructed network, and what became of each layer, in execution order.

    Attributes:
        images: how many of those given were used.
    """

    model: nn.Module
    layers: tuple[LayerResult, ...]
    images: int
    seconds: float


def reconstruct(
    pruned: nn.Module,
    original: nn.Module,
    graph: ChannelGraph,
    plan: ChannelPlan,
    images: Tensor | tuple[Any, ...],
    *,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> nn.Module:
    """The pruned network with new weights; see `reconstruct_layers`, which also says what became
    of each layer.
    """
    return reconstruct_layers(
        pruned, original, graph, plan, images, seed=seed, max_bytes=max_bytes
    ).model


def reconstruct_layers(
    pruned: nn.Module,
    original: nn.Module,
    graph: ChannelGraph,
    plan: ChannelPlan,
    images: Tensor | tuple[Any, ...],
    *,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    progress: Progress = lambda done, total: None,
) -> Reconstruction:
    """Fit every convolution and linear layer of `pruned` anew, in execution order.

    Both networks run in eval mode on the device of `pruned`; neither is changed. The same inputs
    and seed give the same weights on the same machine.

    Args:
        pruned: `prune(original, graph, plan)`, whatever its weights.
        images: (N, C, H, W), or a tuple of inputs with the samples along their first dimension;
        normalised, no labels. The last quarter is held out.
        max_bytes: memory taken, about. Half of it is for activations: of more images than fit, only
        the first are used.
        progress: called with the number of tensors settled, and of all.

    Raises:
        TooFewImages, TooLittleMemory: fewer than 8 images, or no memory for them.
        ArtifactError: the networks, the graph and the plan do not belong together.
    """
    started = time.perf_counter()
    _check(pruned, original, graph, plan)
    device = next((tensor.device for tensor in named_tensors(pruned).values()), None)
    whole, cut = (_prepared(model, device) for model in (original, pruned))
    inputs = (images,) if isinstance(images, Tensor) else tuple(images)
    few = _first(inputs, 2, device)
    forward = met = survey(whole, few)
    if plan.drop:  # calls are counted anew where branches are missing
        left = survey(cut, few)
        forward, met = forward.within(left), forward.met_in(left)
    inputs = _first(inputs, _affordable(inputs, forward, max_bytes), device)
    sampling = Sampling(len(inputs[0]), seed, numbers=max_bytes // 32)  # an eighth, in float32
    kept = kept_outputs(graph, forward, plan.keep)
    tensors = named_tensors(whole)
    gains = {
        use.norm.mean: picked(use.norm.gain(tensors)[None], kept.get(use.norm.mean))[0]
        for use in forward.uses
        if use.norm is not None
    }
    targets = Targets(whole, inputs, forward, kept, sampling, max_bytes // 4)  # a quarter
    state = Refit(cut, inputs, met, targets, sampling, gains, _fixed(met), progress)
    state.run()
    layers = (*state.results.values(), *_unreached(cut, forward))
    model = rebuild(pruned, _as_in(pruned, state.changed), ())
    return Reconstruction(model, layers, len(inputs[0]), time.perf_counter() - started)


def _check(pruned: nn.Module, original: nn.Module, graph: ChannelGraph, plan: ChannelPlan) -> None:
    wanted = {**named_tensors(original), **sliced_tensors(original, graph, plan)}
    for name, tensor in named_tensors(pruned).items():
        if name not in wanted or wanted[name].shape != tensor.shape:
            raise ArtifactError(f"the pruned network is not of this plan: {name} has another shape")


def _prepared(model: nn.Module, device: torch.device | None) -> nn.Module:
    """A copy in eval mode, on `device`, in an arithmetic that bears sums of squares."""
    copied = rebuild(model, {}, ()).to(device).eval()
    # float16 ends at 65504, the square of 256
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in copied.parameters())
    return copied.float() if half else copied


def _first(inputs: tuple[Any, ...], count: int, device: torch.device | None) -> tuple[Any, ...]:
    """The first samples of every input that is a tensor."""
    found = []
    for item in inputs:
        if isinstance(item, Tensor):
            item = item[:count].detach().to(device)
            item = item.float() if item.dtype in (torch.float16, torch.bfloat16) else item
            if item.dim() == 4:
                # patches are gathered pixel by pixel
                item = item.contiguous(memory_format=torch.channels_last)
        found.append(item)
    return tuple(found)


def _affordable(inputs: tuple[Any, ...], forward: Forward, max_bytes: int) -> int:
    """How many images there are, or how many fit."""
    given = len(inputs[0])
    if given < LEAST_IMAGES:
        raise TooFewImages(given)
    fitting = forward.affordable(max_bytes)
    if fitting < LEAST_IMAGES:
        need = 2 * LEAST_IMAGES * LIVE * forward.image_bytes
        raise TooLittleMemory(need, max_bytes)
    return min(given, fitting)


def _fixed(forward: Forward) -> dict[str, str]:
    """Weights that something else uses as well: a fit for the layer would change that."""
    return {
        use.name: f"{forward.elsewhere[use.name]} uses its weight as well"
        for use in forward.uses
        if use.name in forward.elsewhere
    }


def _unreached(model: nn.Module, forward: Forward) -> list[LayerResult]:
    """Weights of two dimensions or more that no convolution or linear layer applied."""
    found = []
    for name, tensor in model.named_parameters():
        if tensor.dim() < 2 or name in forward.names:
            continue
        user = forward.elsewhere.get(name)
        reason = (
            f"it is applied by {user}, which is not refitted" if user else "it is never reached"
        )
        found.append(LayerResult(layer_name(name), None, None, True, reason))
    return found


def _as_in(model: nn.Module, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the type and layout that `model` has them in."""
    tensors = named_tensors(model)
    return {name: torch.empty_like(tensors[name]).copy_(tensor) for name, tensor in changed.items()}
