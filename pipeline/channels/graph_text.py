"""Channel groups as text: entries of graph.json, and tables for people."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

from pipeline.channels.group import ChannelGroup, Member
from pipeline.channels.index_ranges import MAX_INDICES, format_ranges, parse_ranges

_HEADS = ("group", "units", "channels", "slices of", "stays because")
_NAMED = 3  # members that a table line names; the others are counted


def group_entry(group: ChannelGroup) -> dict[str, Any]:
    """The group as JSON data; what has its usual value is left out."""
    entry: dict[str, Any] = {"id": group.id, "size": group.size, "prunable": group.prunable}
    if group.reason:
        entry["reason"] = group.reason
    if not group.exact:
        entry["exact"] = False
    if group.channels_per_unit > 1:
        entry["channels_per_unit"] = group.channels_per_unit
    entry["members"] = [[m.parameter, m.dim, format_ranges(m.indices)] for m in group.members]
    return entry


def parse_groups(
    entries: Sequence[Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[ChannelGroup, ...]:
    """Inverse of `group_entry` for all groups of one document.

    Raises:
        KeyError, TypeError, ValueError, IndexError: an entry is malformed, names a slice that no
            parameter of these shapes has, or all entries together hold too many indices.
    """
    left = MAX_INDICES
    groups = []
    for entry in entries:
        members = []
        for name, dim, ranges in entry["members"]:
            # a slice belongs to one unit, so there are no more than the dimension is long
            indices = parse_ranges(ranges, most=min(left, shapes[name][dim]))
            if max(indices, default=0) >= shapes[name][dim]:
                raise ValueError(f"{name} has no slice {max(indices)} along dimension {dim}")
            left -= len(indices)
            members.append(Member(str(name), int(dim), indices))
        groups.append(_group(entry, tuple(members)))
    return tuple(groups)


def _group(entry: Mapping[str, Any], members: tuple[Member, ...]) -> ChannelGroup:
    name, size = str(entry["id"]), int(entry["size"])
    if (
        size < 1
        or not members
        or any(len(m.indices) < size or len(m.indices) % size for m in members)
    ):
        raise ValueError(f"group {name!r} has members that do not divide into {size} units")
    return ChannelGroup(
        name,
        size,
        members,
        bool(entry["prunable"]),
        str(entry.get("reason", "")),
        bool(entry.get("exact", True)),
        int(entry.get("channels_per_unit", 1)),
    )


def layout(document: Mapping[str, Any]) -> str:
    """JSON with one line for each entry of a top-level list or table, and one for each member of a
    group.
    """
    # so that a diff of two graphs shows the members that changed, and nothing else
    blocks = [f"  {_line(key)}: {_block(key, value)}" for key, value in document.items()]
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _block(key: str, value: Any) -> str:
    if key == "groups":
        return "[" + ",".join(_group_block(group) for group in value) + "\n  ]"
    if isinstance(value, (list, tuple)) and value:
        return "[\n    " + ",\n    ".join(map(_line, value)) + "\n  ]"
    if isinstance(value, dict) and value:
        entries = (f"{_line(key)}: {_line(entry)}" for key, entry in value.items())
        return "{\n    " + ",\n    ".join(entries) + "\n  }"
    return _line(value)


def _group_block(group: Mapping[str, Any]) -> str:
    head = ", ".join(
        f"{_line(key)}: {_line(value)}" for key, value in group.items() if key != "members"
    )
    members = ",\n      ".join(map(_line, group["members"]))
    return f'\n    {{{head}, "members": [\n      {members}]}}'


def _line(value: Any) -> str:
    # people name modules in their own language; NaN is no JSON, other readers would refuse it
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def group_table(groups: Iterable[ChannelGroup]) -> str:
    """Aligned columns, one line a group."""
    return _aligned([_HEADS, *_rows(groups)])


def member_table(group: ChannelGroup) -> str:
    """Aligned columns, one line a member."""
    heads = ("parameter", "dim", "slices a unit", "slices")
    rows = [
        (m.parameter, str(m.dim), str(len(m.indices) // group.size), format_ranges(m.indices))
        for m in group.members
    ]
    return _aligned([heads, *rows])


def unreached(unused: Iterable[str], shapes: Mapping[str, Sequence[int]]) -> str:
    """A sentence about layers that no pass reads; "" where each is read.

    Args:
        unused, shapes: of a `ChannelGraph`, `unused` and `parameters`.
    """
    # batch norm counts its batches, and never looks
    names = [name for name in unused if not name.endswith("num_batches_tracked")]
    if not names:
        return ""
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
    count = sum(prod(shapes[name]) for name in names)
    return (
        f"never reached: {', '.join(layers[:_NAMED])}{more}, {count} numbers that stay in a cut "
        "network and go into no ONNX file"
    )


def html_table(caption: str, groups: Iterable[ChannelGroup]) -> str:
    """The same for a notebook; names are the user's, so all text is escaped."""
    heads = "".join(f"<th>{head}</th>" for head in _HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _rows(groups)
    )
    title = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _rows(groups: Iterable[ChannelGroup]) -> Iterator[tuple[str, ...]]:
    for group in groups:
        named = [f"{m.parameter}[{m.dim}]" for m in group.members[:_NAMED]]
        more = len(group.members) - len(named)
        members = ", ".join(named) + (f" and {more} more" if more > 0 else "")
        channels = str(group.size * group.channels_per_unit)
        yield group.id, str(group.size), channels, members, group.reason


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
