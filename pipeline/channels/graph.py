"""What a trace yields: groups of channels that live or die together, and what each layer costs.

A micro-example. In `y = bn(conv(x)); z = fc(y.flatten(1))` with 2 channels on a 2×2 map:

    conv.weight  dim 0   [ 0  1 ]                      one row a unit
    bn.weight    dim 0   [ 0  1 ]                      and bias, running_mean, running_var
    fc.weight    dim 1   [ 0 0 0 0  1 1 1 1 ]          four columns a unit: indices (0,1,2,3, 4,5,6,7)

is one group of size 2 called "conv"; removing unit 0 removes every slice marked 0.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from pipeline.channels.index_ranges import indices_of, runs_of
from pipeline.errors import ArtifactError

SCHEMA_VERSION = 1


class Member(NamedTuple):
    """Slices of one parameter or buffer along one dimension.

    `indices` is unit-major: with `k = len(indices) // group.size` slices a unit, unit `u` owns
    `indices[u * k : (u + 1) * k]`.
    """

    parameter: str
    dim: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Units with the same set of (parameter, dimension): one width of the network.

    `id` is the module (or free parameter) that produces the channels first. A group that must keep
    all its units has `prunable=False` and says why. `exact=False` marks groups that were opened on
    request although cutting them changes channel statistics (LayerNorm, GroupNorm).
    `channels_per_unit` is the number of output channels of the first producer that a unit stands
    for: more than 1 behind ties (grouped convolutions).
    """

    id: str
    size: int
    members: tuple[Member, ...]
    prunable: bool = True
    reason: str = ""
    exact: bool = True
    channels_per_unit: int = 1

    def slices(self, unit: int) -> list[tuple[str, int, tuple[int, ...]]]:
        """(parameter, dim, indices) of every slice that dies with `unit`."""
        found = []
        for name, dim, indices in self.members:
            share = len(indices) // self.size
            found.append((name, dim, indices[unit * share : (unit + 1) * share]))
        return found


@dataclass(frozen=True)
class Width:
    """A module attribute that counts channels, such as `conv1.out_channels`, and the groups it
    follows.

    `follows` pairs a group id with how much the attribute loses for each unit removed from it.
    """

    module: str
    attribute: str
    value: int
    follows: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class LayerCost:
    """One parameterised module and how often its weight is applied.

    `positions` is the number of times the whole weight is multiplied for one sample, summed over
    all uses (output pixels of a convolution, rows of a linear layer), so that MACs = positions ×
    weight elements. `fixed_macs` are multiplications that no cut changes (attention scores).
    """

    name: str
    type: str
    parameters: tuple[str, ...]
    weight: str = ""
    positions: int = 0
    out_dim: int = 0
    in_dim: int = 1
    groups: int = 1
    fixed_macs: int = 0


@dataclass(frozen=True)
class ChannelGraph:
    """Channel groups of one network, its widths and costs; plain data, deterministic as JSON."""

    groups: tuple[ChannelGroup, ...]
    parameters: dict[str, tuple[int, ...]]
    widths: tuple[Width, ...] = ()
    layers: tuple[LayerCost, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    inputs: tuple[tuple[int, ...], ...] = ()
    unused: tuple[str, ...] = ()

    def bind(self, model: nn.Module) -> ChannelGraph:
        """Remember, weakly and in this process only, the model that was traced; returns self."""
        object.__setattr__(self, "_source", weakref.ref(model))
        return self

    @property
    def source(self) -> nn.Module | None:
        """The traced model while it lives; None for a graph read from JSON."""
        reference = self.__dict__.get("_source")
        return reference() if reference is not None else None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_source"}

    def __getitem__(self, group_id: str) -> ChannelGroup:
        return self._by_id[group_id]

    def __contains__(self, group_id: str) -> bool:
        return group_id in self._by_id

    @cached_property
    def _by_id(self) -> dict[str, ChannelGroup]:
        return {group.id: group for group in self.groups}

    @cached_property
    def tables(self) -> dict[str, list[tuple[str, int, np.ndarray]]]:
        """Members as arrays: {group id: [(parameter, dim, indices of shape (size, slices a
        unit))]}.
        """
        return {
            group.id: [
                (m.parameter, m.dim, np.array(m.indices).reshape(group.size, -1))
                for m in group.members
            ]
            for group in self.groups
        }

    def with_frozen(self, reasons: Mapping[str, str]) -> ChannelGraph:
        """A graph in which these groups must keep all channels; {group id: reason}."""
        groups = tuple(
            replace(g, prunable=False, reason=reasons[g.id]) if g.id in reasons else g
            for g in self.groups
        )
        return replace(self, groups=groups)

    def widths_after(self, kept: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
        """(module, attribute, value) of each attribute that changes when groups keep this many
        units.
        """
        for width in self.widths:
            lost = sum(share * (self[g].size - kept[g]) for g, share in width.follows if g in kept)
            if lost:
                yield width.module, width.attribute, width.value - lost

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups a plan may cut."""
        return tuple(group for group in self.groups if group.prunable)

    @property
    def frozen(self) -> dict[str, str]:
        """Why each remaining group keeps all its channels: {group id: reason}."""
        return {group.id: group.reason for group in self.groups if not group.prunable}

    def to_json(self) -> str:
        """Indented, one member a line, index runs as "0-63,128"; the same bytes for the same
        network.
        """
        groups = [
            {
                "id": group.id,
                "size": group.size,
                "prunable": group.prunable,
                **({"reason": group.reason} if group.reason else {}),
                **({} if group.exact else {"exact": False}),
                **(
                    {"channels_per_unit": group.channels_per_unit}
                    if group.channels_per_unit > 1
                    else {}
                ),
                "members": [[m.parameter, m.dim, runs_of(m.indices)] for m in group.members],
            }
            for group in self.groups
        ]
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "inputs": self.inputs,
            "groups": groups,
            "widths": [[w.module, w.attribute, w.value, w.follows] for w in self.widths],
            "layers": [vars(layer) for layer in self.layers],
            "parameters": self.parameters,
            "aliases": self.aliases,
            "unused": self.unused,
        }
        return _layout(document)

    @staticmethod
    def from_json(text: str) -> ChannelGraph:
        """Inverse of `to_json`. Raises ArtifactError when the text is no channel graph."""
        try:
            data = json.loads(text)
            if data["schema_version"] != SCHEMA_VERSION:
                raise ArtifactError(
                    f"channel graph has schema version {data['schema_version']}, this program reads {SCHEMA_VERSION}",
                    hint="run the trace stage again",
                )
            return ChannelGraph(
                groups=tuple(_group(item) for item in data["groups"]),
                parameters={name: tuple(shape) for name, shape in data["parameters"].items()},
                widths=tuple(
                    Width(m, a, v, tuple((g, n) for g, n in f)) for m, a, v, f in data["widths"]
                ),
                layers=tuple(
                    LayerCost(**{**item, "parameters": tuple(item["parameters"])})
                    for item in data["layers"]
                ),
                aliases=dict(data["aliases"]),
                inputs=tuple(tuple(shape) for shape in data["inputs"]),
                unused=tuple(data["unused"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"not a channel graph: {error}", hint="run the trace stage again"
            ) from error


def _group(item: Mapping[str, Any]) -> ChannelGroup:
    members = tuple(
        Member(str(name), int(dim), indices_of(runs)) for name, dim, runs in item["members"]
    )
    size = int(item["size"])
    if any(len(member.indices) % size for member in members):
        raise ValueError(f"group {item['id']!r} has members that do not divide into {size} units")
    return ChannelGroup(
        str(item["id"]),
        size,
        members,
        bool(item["prunable"]),
        str(item.get("reason", "")),
        bool(item.get("exact", True)),
        int(item.get("channels_per_unit", 1)),
    )


def _layout(document: Mapping[str, Any]) -> str:
    """JSON with one line for each entry of a top-level list or table, and one for each member
    of a group.
    """
    blocks = []
    for key, value in document.items():
        if key == "groups":
            text = "[" + ",".join(_layout_group(group) for group in value) + "\n  ]"
        elif isinstance(value, (list, tuple)) and value:
            text = "[\n    " + ",\n    ".join(map(_line, value)) + "\n  ]"
        elif isinstance(value, dict) and value:
            text = (
                "{\n    "
                + ",\n    ".join(f"{_line(k)}: {_line(v)}" for k, v in value.items())
                + "\n  }"
            )
        else:
            text = _line(value)
        blocks.append(f"  {_line(key)}: {text}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _layout_group(group: Mapping[str, Any]) -> str:
    head = ", ".join(
        f"{_line(key)}: {_line(value)}" for key, value in group.items() if key != "members"
    )
    members = ",\n      ".join(map(_line, group["members"]))
    return f'\n    {{{head}, "members": [\n      {members}]}}'


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
