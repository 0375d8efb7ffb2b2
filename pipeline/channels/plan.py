"""Which units of each group stay, and which residual branches go altogether."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import gcd
from typing import Any

import torch

from pipeline.channels.branch import Branch
from pipeline.channels.graph import ChannelGraph, Keep
from pipeline.channels.graph_text import layout
from pipeline.channels.group import ChannelGroup
from pipeline.channels.importance import weight_norms
from pipeline.channels.index_ranges import MAX_INDICES, format_ranges, parse_ranges
from pipeline.errors import ArtifactError, Hint, UsageError


@dataclass(frozen=True)
class ChannelPlan:
    """`keep[group id]` lists the units that stay, ascending; a group that is not named stays
    whole. `drop` lists residual branches that go with all groups in them.
    """

    keep: dict[str, tuple[int, ...]]
    metadata: dict[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    @staticmethod
    def of(
        graph: ChannelGraph, keep: Keep, metadata: Mapping[str, Any] | None = None
    ) -> ChannelPlan:
        """From kept units in which a branch goes where none of its groups keeps any."""
        going = graph.dropped(keep)
        gone = {group for branch in going for group in branch.groups}
        left = {group: tuple(units) for group, units in keep.items() if group not in gone}
        return ChannelPlan(left, dict(metadata or {}), tuple(branch.id for branch in going))

    @staticmethod
    def uniform(
        graph: ChannelGraph,
        cut: float = 0.5,
        multiple_of: int = 1,
        importance: Mapping[str, torch.Tensor] | None = None,
    ) -> ChannelPlan:
        """Take the same fraction of every prunable group, its least important units first.

        Args:
            cut: fraction of units to remove, 0 ≤ cut < 1; at least one unit of a group stays.
            multiple_of: channels that remain are a multiple of this where the group is wide enough.
            importance: {group id: (size,) scores}; by default the L2 norm on the traced model. A
                graph without one, read from JSON, warns and ranks by position.

        Raises:
            UsageError: `cut` or `multiple_of` is out of range.
        """
        if not 0 <= cut < 1:
            raise UsageError(
                f"cut must be at least 0 and below 1, got {cut}",
                hint="0.5 removes half of every group",
            )
        if multiple_of < 1:
            raise UsageError(f"multiple_of must be at least 1, got {multiple_of}")
        criterion = "given"
        if importance is None:
            importance, criterion = _default_importance(graph)
        keep = {}
        for group in graph.prunable:
            # a third of 9 units is 3: without the allowance, rounding makes it 2
            wanted = group.size - int(group.size * cut + 1e-9)
            count = aligned(group, wanted, multiple_of)
            scores = importance.get(group.id, torch.zeros(group.size))
            # stable: of equal scores the lower index stays, on every machine
            best = torch.argsort(torch.as_tensor(scores), descending=True, stable=True)[:count]
            keep[group.id] = tuple(sorted(best.tolist()))  # a cut never reorders channels
        return ChannelPlan(
            keep, {"strategy": "uniform", "cut": cut, "multiple_of": multiple_of, "by": criterion}
        )

    def counts(self) -> dict[str, int]:
        """Units that stay: what `CostModel` asks for, with `drop`."""
        return {group: len(units) for group, units in self.keep.items()}

    def branches(self, graph: ChannelGraph) -> tuple[Branch, ...]:
        """Those that go, in graph order."""
        return tuple(branch for branch in graph.branches if branch.id in self.drop)

    def kept_of(self, graph: ChannelGraph) -> dict[str, tuple[int, ...]]:
        """The units that stay, none of the groups that go with a branch."""
        gone = {group: () for branch in self.branches(graph) for group in branch.groups}
        return {**self.keep, **gone}

    def check(self, graph: ChannelGraph) -> None:
        """Raise ArtifactError, with the first three problems, unless the plan fits the graph."""
        problems = [
            problem
            for group, units in self.keep.items()
            if (problem := _problem(graph, group, units))
        ]
        problems += [problem for name in self.drop if (problem := self._undroppable(graph, name))]
        if problems:
            raise ArtifactError(
                f"the plan does not fit this network: {problems[0]}",
                hint="make the plan from the graph of this very network: "
                "run trace and search again",
                details=problems[1:3],
            )

    def _undroppable(self, graph: ChannelGraph, name: str) -> str:
        branch = next((branch for branch in graph.branches if branch.id == name), None)
        if branch is None:
            return f"it drops the branch {name!r}, which the network does not have"
        if not branch.removable:
            return f"it drops the branch {name}, which must stay: {branch.reason}"
        named = next((group for group in branch.groups if group in self.keep), None)
        return f"it keeps units of {named}, which goes with the branch {name}" if named else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, units as ranges ("0-31,40")."""
        keep = {group: format_ranges(units) for group, units in self.keep.items()}
        drop = {"drop": list(self.drop)} if self.drop else {}
        return {"keep": keep, **drop, "metadata": self.metadata}

    def to_json(self) -> str:
        """One group a line; `from_json` and `to_json` are byte-identical inverses."""
        return layout(self.to_dict())

    @staticmethod
    def from_json(text: str) -> ChannelPlan:
        """Raises ArtifactError when the text is no plan."""
        try:
            return ChannelPlan.from_dict(json.loads(text))
        except ValueError as error:
            raise ArtifactError(f"not JSON: {error}", hint=Hint.rerun("search")) from error

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ChannelPlan:
        """Inverse of `to_dict`. Raises ArtifactError when the data are no plan."""
        try:
            # `list.copy` takes a list alone: a text would be as many branches as letters
            drop = tuple(map(str, list.copy(data.get("drop", []))))
            return ChannelPlan(_parsed(data["keep"]), dict(data["metadata"]), drop)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"not a channel plan: {error}"
            raise ArtifactError(message, hint=Hint.rerun("search")) from error


def _parsed(entries: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    left, keep = MAX_INDICES, {}
    for group, ranges in entries.items():
        keep[str(group)] = parse_ranges(ranges, most=left)
        left -= len(keep[str(group)])
    return keep


def aligned(group: ChannelGroup, count: int, multiple_of: int) -> int:
    """The number of units nearest to `count` whose channels are a multiple of `multiple_of`;
    never 0.
    """
    # units that together make a multiple: 4 of them where each stands for 2 channels of 8
    step = multiple_of // gcd(multiple_of, group.channels_per_unit)
    if step >= group.size:
        return group.size if step > 1 else max(1, min(count, group.size))
    return min(max(step, (2 * count + step) // (2 * step) * step), group.size)


def _problem(graph: ChannelGraph, group_id: str, units: tuple[int, ...]) -> str:
    if group_id not in graph:
        return f"it names the group {group_id!r}, which the network does not have"
    group = graph[group_id]
    if not units:
        return f"it removes every channel of {group_id}"
    if any(b <= a for a, b in pairwise(units)) or units[0] < 0 or units[-1] >= group.size:
        return f"units of {group_id} are not ascending numbers from 0 to {group.size - 1}"
    if not group.prunable and len(units) < group.size:
        return f"it cuts {group_id}, which must stay: {group.reason}"
    return ""


def _default_importance(graph: ChannelGraph) -> tuple[Mapping[str, torch.Tensor], str]:
    model = graph.source
    if model is None:
        warnings.warn(
            "this graph has no model at hand: channels are ranked by position; pass importance=",
            stacklevel=3,  # the line that called `uniform`
        )
        return {}, "position"
    return weight_norms(model, graph.slices), "l2"
