"""The residual branches of a traced network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from pipeline.channels.branch import Branch
from pipeline.channels.graph import ChannelGraph
from stages.trace.branches.finding import Candidate, candidates, found_of
from stages.trace.branches.needed import settled
from stages.trace.branches.trials import Trial
from stages.trace.capture.calls import Capture, Ground
from stages.trace.capture.model_state import Snapshot


def branches(
    model: nn.Module,
    inputs: tuple[Any, ...],
    captures: Sequence[Capture],
    graph: ChannelGraph,
    snapshot: Snapshot,
) -> tuple[Branch, ...]:
    """Those that may go, and those that must stay with the reason why, in the order of their sums.

    Args:
        captures: of eval mode, and of training mode where that computes more: what may go is read
            by nothing else in either.
        snapshot: of the model, which runs with stand-ins in place of its modules.
    """
    first = captures[0]
    if first.ground is Ground.EXPORT:  # its calls cannot be listened to again
        return ()
    parameters = [name for name, _ in model.named_parameters()]
    found = candidates(first, parameters)
    for other in captures[1:]:
        known = {one.modules for one in candidates(other, parameters)}
        found = [one for one in found if one.modules in known]
    names = _names(found)
    given = [found_of(one, graph, name) for one, name in zip(found, names, strict=True)]
    return tuple(settled(Trial(model, inputs, first, graph, snapshot), given))


def _names(found: Sequence[Candidate]) -> list[str]:
    """One each: the module that adds, or where that adds twice the last one of the branch."""
    adds = Counter(one.name for one in found)
    names: list[str] = []
    for one in found:
        name = one.name if adds[one.name] == 1 else one.modules[-1]
        again = sum(other.partition("#")[0] == name for other in names)
        names.append(f"{name}#{again + 1}" if again else name)
    return names
