"""What a trace yields: the channel groups of one network, its widths, and what each layer costs."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pipeline.channels import graph_text
from pipeline.channels.branch import Branch, StandIn, branch_from_json
from pipeline.channels.group import ChannelGroup, UnitSlices
from pipeline.channels.layer_cost import LayerCost, layer_from_json
from pipeline.errors import ArtifactError, Hint

Keep = Mapping[str, Sequence[int]]
"""{group id: units that stay}; a group that is not named stays whole."""

Place = tuple[str, int]
"""A parameter or buffer, and one of its dimensions."""


@dataclass(frozen=True)
class Width:
    """A module attribute that counts channels, such as `conv1.out_channels`.

    `follows` pairs a group id with how much the attribute loses for each unit removed from it.
    """

    module: str
    attribute: str
    value: int
    follows: tuple[tuple[str, int], ...]

    def lost(self, removed: Mapping[str, int]) -> int:
        """What the attribute loses when groups lose so many units; {group id: units}."""
        return sum(share * removed[group] for group, share in self.follows if group in removed)


@dataclass(frozen=True, repr=False)
class ChannelGraph:
    """Channel groups of one network, its widths and costs; plain data, deterministic as JSON.

    Attributes:
        parameters: shape of every parameter and buffer by canonical name.
        aliases: {other name: canonical name} of tensors that several modules share.
        inputs: shapes of the example inputs.
        unused: parameters that no forward pass reads.
        divisors: parameters and dimensions whose slices something is divided by, such as the
            direction of a weight norm: silencing a unit leaves them as they are.
        branches: residual branches, those that may go altogether and those that must stay.
    """

    groups: tuple[ChannelGroup, ...]
    parameters: dict[str, tuple[int, ...]]
    widths: tuple[Width, ...] = ()
    layers: tuple[LayerCost, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    inputs: tuple[tuple[int, ...], ...] = ()
    unused: tuple[str, ...] = ()
    divisors: tuple[Place, ...] = ()
    branches: tuple[Branch, ...] = ()
    # a field, so that `dataclasses.replace` carries it: without its model a graph cannot rank
    _model: weakref.ref[nn.Module] | None = field(default=None, compare=False)

    def bind(self, model: nn.Module) -> ChannelGraph:
        """The same graph, remembering, weakly and in this process only, the traced model."""
        return replace(self, _model=weakref.ref(model))

    @property
    def source(self) -> nn.Module | None:
        """The traced model while it lives; None for a graph read from JSON."""
        return self._model() if self._model is not None else None

    def __getstate__(self) -> dict[str, Any]:
        """Plain data only: another process has another model, and makes its own tables."""
        # cached tables are as large again as what they are made from
        names = [each.name for each in fields(self) if each.name != "_model"]
        return {name: self.__dict__[name] for name in names}

    def __copy__(self) -> ChannelGraph:  # copy.copy would go by __getstate__, and lose the model
        return replace(self)

    def __getitem__(self, group_id: str) -> ChannelGroup:
        return self._by_id[group_id]

    def __contains__(self, group_id: str) -> bool:
        return group_id in self._by_id

    @cached_property
    def _by_id(self) -> dict[str, ChannelGroup]:
        return {group.id: group for group in self.groups}

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups a plan may cut."""
        return tuple(group for group in self.groups if group.prunable)

    @property
    def frozen(self) -> dict[str, str]:
        """Why each remaining group keeps all its channels: {group id: reason}."""
        return {group.id: group.reason for group in self.groups if not group.prunable}

    def with_frozen(self, reasons: Mapping[str, str]) -> ChannelGraph:
        """A graph in which these groups must keep all channels; {group id: reason}.

        Branches that they would go with must stay as well.
        """
        if not reasons:
            return self
        groups = tuple(
            replace(g, prunable=False, reason=reasons[g.id]) if g.id in reasons else g
            for g in self.groups
        )
        why = {
            b.id: next((reasons[g] for g in b.groups if g in reasons), "") for b in self.branches
        }
        branches = tuple(replace(b, reason=b.reason or why[b.id]) for b in self.branches)
        return replace(self, groups=groups, branches=branches)

    @property
    def removable(self) -> dict[str, Branch]:
        """The branches that a plan may drop, by id."""
        return {branch.id: branch for branch in self.branches if branch.removable}

    @cached_property
    def whole_branches(self) -> dict[frozenset[str], Branch]:
        """{prunable groups in it: branch that goes when none of them keeps a unit}."""
        found: dict[frozenset[str], Branch] = {}
        free = {group.id for group in self.prunable}
        for branch in self.removable.values():
            if inside := free.intersection(branch.groups):
                known = found.get(frozenset(inside))
                # one may stand within another: of those with the same groups the smallest
                if known is None or all(map(known.holds, branch.modules)):
                    found[frozenset(inside)] = branch
        return found

    def dropped(self, keep: Keep) -> tuple[Branch, ...]:
        """The branches that go because no group in them keeps a unit, in graph order."""
        empty = {group for group, units in keep.items() if not len(units)}
        going = [branch for inside, branch in self.whole_branches.items() if inside <= empty]
        return tuple(branch for branch in self.branches if branch in going)

    @cached_property
    def slices(self) -> dict[str, list[UnitSlices]]:
        """The slices that the units of each group own: {group id: a table for each member}."""
        return {group.id: group.tables() for group in self.groups}

    @cached_property
    def slices_along(self) -> dict[Place, list[UnitSlices]]:
        """The same tables by what they cut: {(parameter, dim): a table for each group there}."""
        found: dict[Place, list[UnitSlices]] = {}
        for tables in self.slices.values():
            for table in tables:
                found.setdefault((table.parameter, table.dim), []).append(table)
        return found

    def removed_slices(self, keep: Keep) -> dict[Place, NDArray[np.int64]]:
        """What goes: {(parameter, dim): indices}, in the order of `keep`."""
        removed: dict[Place, list[NDArray[np.int64]]] = {}
        for group_id, kept in keep.items():
            size = self[group_id].size
            if len(kept) == size:  # a search names every group, cut or not
                continue
            gone = np.ones(size, dtype=bool)
            gone[np.asarray(kept, dtype=np.int64)] = False  # of an empty list numpy makes floats
            taken: dict[int, NDArray[np.int64]] = {}
            for table in self.slices[group_id]:
                if id(table.indices) not in taken:  # a batch norm's tensors share their table
                    taken[id(table.indices)] = table.indices[gone].reshape(-1)
                parts = removed.setdefault((table.parameter, table.dim), [])
                parts.append(taken[id(table.indices)])
        return {
            place: parts[0] if len(parts) == 1 else np.concatenate(parts)
            for place, parts in removed.items()
        }

    def stand_ins(self, going: Iterable[Branch], keep: Keep) -> dict[str, StandIn]:
        """What takes the places of branches; zeros are as wide as `keep` leaves the trunk."""
        lost = {place: len(gone) for place, gone in self.removed_slices(keep).items()}
        found: dict[str, StandIn] = {}
        for branch in going:
            found |= dict.fromkeys(branch.modules, (0, ()))
            for path, stride, name, dim in branch.endings:
                width = self.parameters[name][dim] - lost.get((name, dim), 0) if name else 0
                found[path] = width, stride
        # of a branch within a branch nothing is left to stand in for
        return {
            path: zeros
            for path, zeros in found.items()
            if not any(path.startswith(f"{other}.") for other in found)
        }

    def widths_after(self, keep: Keep) -> Iterator[tuple[str, str, int]]:
        """(module, attribute, value) of each attribute that changes."""
        removed = {group: self[group].size - len(units) for group, units in keep.items()}
        for width in self.widths:
            if lost := width.lost(removed):
                yield width.module, width.attribute, width.value - lost

    def __repr__(self) -> str:
        units, free = (sum(g.size for g in some) for some in (self.groups, self.prunable))
        return (
            f"<ChannelGraph: {len(self.groups)} groups, {len(self.prunable)} prunable "
            f"({free} of {units} units), {len(self.layers)} layers>"
        )

    def details(self, group_id: str | None = None) -> str:
        """A table for reading: one line a group, or for one group one line a member."""
        if group_id is not None:
            return f"{self[group_id]!r}\n{graph_text.member_table(self[group_id])}"
        lines = [repr(self), graph_text.group_table(self.groups)]
        if unreached := graph_text.unreached(self.unused, self.parameters):
            lines.append(unreached)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return graph_text.html_table(repr(self), self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, index ranges as "0-63,128"."""
        return {
            "inputs": self.inputs,
            "groups": [graph_text.group_entry(group) for group in self.groups],
            "widths": [[w.module, w.attribute, w.value, w.follows] for w in self.widths],
            "layers": [vars(layer) for layer in self.layers],
            "parameters": self.parameters,
            "aliases": self.aliases,
            "unused": self.unused,
            **({"divisors": self.divisors} if self.divisors else {}),
            **({"branches": [b.to_dict() for b in self.branches]} if self.branches else {}),
        }

    def to_json(self) -> str:
        """Indented, one member a line; the same bytes for the same network."""
        return graph_text.layout(self.to_dict())

    @staticmethod
    def from_json(text: str) -> ChannelGraph:
        """Inverse of `to_json`. Raises ArtifactError when the text is no channel graph."""
        try:
            return ChannelGraph.from_dict(json.loads(text))
        except ValueError as error:
            raise ArtifactError(f"not JSON: {error}", hint=Hint.rerun("trace")) from error

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ChannelGraph:
        """Inverse of `to_dict`. Raises ArtifactError when the data are no channel graph."""
        try:
            return _parsed(data)
        # JSON of another shape trips over any of these
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            message = f"not a channel graph: {error}"
            raise ArtifactError(message, hint=Hint.rerun("trace")) from error


def _parsed(data: Mapping[str, Any]) -> ChannelGraph:
    parameters = {str(name): tuple(map(int, shape)) for name, shape in data["parameters"].items()}
    return ChannelGraph(
        groups=graph_text.parse_groups(data["groups"], parameters),
        parameters=parameters,
        widths=tuple(
            Width(module, attribute, value, tuple((group, share) for group, share in follows))
            for module, attribute, value, follows in data["widths"]
        ),
        layers=tuple(map(layer_from_json, data["layers"])),
        aliases=dict(data["aliases"]),
        inputs=tuple(tuple(shape) for shape in data["inputs"]),
        unused=tuple(data["unused"]),
        divisors=tuple((str(name), int(dim)) for name, dim in data.get("divisors", ())),
        branches=tuple(branch_from_json(entry, parameters) for entry in data.get("branches", ())),
    )
