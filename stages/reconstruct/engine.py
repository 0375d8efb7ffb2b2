"""New weights by least squares for what a cut has broken: no labels, no gradients.

Every layer gets the weights that best reproduce what the *original* layer gives from the inputs
that are left (ThiNet, arXiv 1707.06342; channel pruning, 1707.06168; OSSCAR, 2403.12983).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.surgery import rebuild
from pipeline.errors import UsageError
from stages.prune.plan import ChannelPlan
from stages.reconstruct.forward import Forward, survey
from stages.reconstruct.kept import kept_outputs
from stages.reconstruct.sequential import LayerResult, Refit, Sampling, Targets, scales_of

LEAST_IMAGES = 8  # two are held out
MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class Reconstruction:
    """A reconstructed network and what each layer's fit came to."""

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
    **kw,
) -> nn.Module:
    return reconstruct_layers(pruned, original, graph, plan, images, seed=seed, **kw).model


def reconstruct_layers(
    pruned, original, graph, plan, images, *, seed=0, max_bytes=MAX_BYTES, compensate=True, rows=8192, per_unknown=8, grouped_rows=1024,
) -> Reconstruction:
    started = time.perf_counter()
    inputs = (images,) if isinstance(images, Tensor) else tuple(images)
    whole, cut = (copy.deepcopy(model).eval() for model in (original, pruned))
    few = tuple(item[:2] for item in inputs)
    forward = survey(whole, few)
    sampling = Sampling(len(inputs[0]), seed, rows=rows, per_unknown=per_unknown, grouped_rows=grouped_rows)
    kept = kept_outputs(graph, forward, plan.keep)
    targets = Targets(whole, inputs, forward, kept, sampling, max_bytes // 4)
    scales = {name: s if name not in kept else s[kept[name]] for name, s in scales_of(whole, forward).items()}
    state = Refit(cut, inputs, forward, targets, sampling, scales, compensate)
    state.run()
    changed = state.changed
    return Reconstruction(rebuild(pruned, changed, ()), tuple(state.results.values()), len(inputs[0]), time.perf_counter() - started)
