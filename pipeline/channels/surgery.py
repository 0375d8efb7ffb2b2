"""`cut` takes channels out, `mask` silences them: in eval mode both give the same output for every
input.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.channels.branch import put_in_place
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.rebuild import named_tensors, rebuild, slice_tensors
from pipeline.errors import ArtifactError


def cut(model: nn.Module, graph: ChannelGraph, plan: ChannelPlan) -> nn.Module:
    """A new network without the channels and branches that the plan drops, not run; `model` stays
    as it is.

    Parameters and buffers are sliced, module attributes (`out_channels`, `groups`, `num_features`
    …) follow; modules of a branch give way to ones without parameters; training mode,
    requires_grad, shared modules and hooks are kept.

    Raises:
        ArtifactError: plan and graph, or graph and model, do not belong together.
    """
    _check(model, graph, plan)
    changed = slice_tensors(named_tensors(model), graph, plan.keep)
    small = rebuild(model, changed, graph.widths_after(plan.keep))
    return put_in_place(small, graph.stand_ins(plan.branches(graph), plan.keep))


def mask(model: nn.Module, graph: ChannelGraph, plan: ChannelPlan) -> nn.Module:
    """A same-shaped network in which every parameter slice of the dropped channels is zero, and
    the last parameters of dropped branches are; buffers stay, and so do slices that a weight is
    divided by.

    Raises:
        ArtifactError: plan and graph, or graph and model, do not belong together.
    """
    _check(model, graph, plan)
    parameters = dict(model.named_parameters())
    changed: dict[str, torch.Tensor] = {}
    for (name, dim), gone in graph.removed_slices(plan.keep).items():
        # a norm whose weight and bias are zero is silent whatever its statistics
        if name in parameters and (name, dim) not in graph.divisors:
            tensor = changed.setdefault(name, parameters[name].detach().clone())
            tensor.index_fill_(dim, torch.from_numpy(gone).to(tensor.device), 0)
    for branch in plan.branches(graph):
        changed |= {name: torch.zeros_like(parameters[name]) for name in branch.silent}
    return rebuild(model, changed, ())


def sliced_tensors(
    model: nn.Module, graph: ChannelGraph, plan: ChannelPlan
) -> dict[str, torch.Tensor]:
    """Only the parameters and buffers that a cut changes, by name: what
    `load_state_dict(strict=False)` of a cut copy takes. Those of dropped branches are not among
    them.

    Raises:
        ArtifactError: plan and graph, or graph and model, do not belong together.
    """
    _check(model, graph, plan)
    changed = slice_tensors(named_tensors(model), graph, plan.keep)
    going = plan.branches(graph)
    changed = {n: t for n, t in changed.items() if not any(branch.holds(n) for branch in going)}
    shared = {alias: changed[name] for alias, name in graph.aliases.items() if name in changed}
    return {**changed, **shared}


def _check(model: nn.Module, graph: ChannelGraph, plan: ChannelPlan) -> None:
    plan.check(graph)
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
    if shapes == graph.parameters:  # cheap; the sentence is made only where they differ
        return
    names = dict.fromkeys([*graph.parameters, *shapes])
    wrong = [
        f"{name}: the graph has {graph.parameters.get(name, 'nothing')}, "
        f"the model {shapes.get(name, 'nothing')}"
        for name in names
        if shapes.get(name) != graph.parameters.get(name)
    ]
    raise ArtifactError(
        f"the graph is not of this network: {wrong[0]}",
        hint="trace this very network again",
        details=wrong[1:3],
    )
