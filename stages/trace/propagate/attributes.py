"""Sizes that modules keep as plain numbers, such as `self.width`, and what they count in a call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from stages.trace.capture.calls import Call, flatten
from stages.trace.propagate.label_values import Activation, Bound, Result, Vector
from stages.trace.propagate.readings import Reading

_SLICES = ("slice", "narrow")
_SPLITS = ("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")


@dataclass(frozen=True)
class Follow:
    """A guess for all calls at a site: an attribute counts the channels of a part of the call.

    `depth` is 0 for the innermost running module, 1 for the module that holds it and so on.
    `attribute` is "width", or "splits.1" for an entry of a list or tuple. `part` is a key of
    `parts`.
    """

    depth: int
    attribute: str
    part: str


def parts(
    call: Call, bound: Bound, result: Result, reading: Reading = Reading.INNER
) -> dict[str, Vector]:
    """The channels that a number of this call may count, the most telling first.

    For `x[:, self.a : self.b]` of 16 channels, a = 4 and b = 12:

        start     channels 0 to 3      since a cut of these moves the point
        end       channels 0 to 11
        result    channels 4 to 11
        width     channels 0 to 15     for forms like x[:, : self.channels // 2]
    """
    found: dict[str, Vector] = {}
    name = call.name.rstrip("_")
    value = bound.first
    if isinstance(value, Activation) and value.dim is not None:
        if name in _SLICES:
            found |= _points(bound, value)
        elif name == "group_norm" or (name.startswith("conv") and reading is Reading.OUTER):
            # read INNER, a convolution keeps its number of groups
            groups = bound["num_groups" if name == "group_norm" else "groups"]
            found["groups"] = value.vector.reshape(groups, -1)[:, 0].copy()
    results = [item for item in flatten(result) if _has_channels(item)]
    if name in _SPLITS:
        pieces = enumerate(flatten(result))
        found |= {f"sizes.{place}": item.vector for place, item in pieces if _has_channels(item)}
    elif name != "group_norm":
        found |= _numbered("result", results)
    return found | _numbered("width", [item for item in flatten(bound) if _has_channels(item)])


def size(module: nn.Module | None, attribute: str) -> int | None:
    """A plain number of a module, or an entry of a plain list; None where it has no such thing."""
    name, _, entry = attribute.partition(".")
    # no getattr: a property cannot be given another value, and would run code of the user's
    value = vars(module).get(name) if module is not None else None
    if entry and isinstance(value, (list, tuple)):
        value = value[int(entry)] if int(entry) < len(value) else None
    return value if type(value) is int else None  # a bool is no size


def sizes(module: nn.Module) -> Iterator[tuple[str, int]]:
    """All sizes that a module keeps, those of lists entry by entry, as it defined them."""
    for name, value in vars(module).items():
        if type(value) is int:
            yield name, value
        elif isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value):
            yield from ((f"{name}.{place}", number) for place, number in enumerate(value))


def holder(path: str, depth: int) -> str | None:
    """Path of the module `depth` levels above `path`; None above the network itself."""
    names = path.split(".") if path else []
    return ".".join(names[: len(names) - depth]) if depth <= len(names) else None


def _points(bound: Bound, value: Activation) -> dict[str, Vector]:
    """What lies before the points of a slice, or after those that are counted from the end."""
    if bound.get("dim", 0) % len(value.shape) != value.dim:
        return {}
    start, end = bound.get("start"), bound.get("end")
    if "length" in bound:
        end = start + bound["length"]
    found, width = {}, len(value.vector)
    for name, point in (("start", start), ("end", end)):
        if isinstance(point, int) and 0 < abs(point) < width:  # x[:, 2:] has the end 2**63 - 1
            found[name] = value.vector[:point] if point > 0 else value.vector[point:]
    return found


def _numbered(name: str, values: list[Activation]) -> dict[str, Vector]:
    """One entry for each length."""
    # reversed: the first of each length wins
    vectors = {len(value.vector): value.vector for value in reversed(values)}
    return {
        name if place == 0 else f"{name}.{place}": vector
        for place, vector in enumerate(reversed(vectors.values()))
    }


def _has_channels(value: Any) -> bool:
    return isinstance(value, Activation) and value.dim is not None
