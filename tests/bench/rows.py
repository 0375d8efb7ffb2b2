"""The table of breadth on disk: JSON that grows row by row, Markdown, and what got worse."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import kept
from refit import cells
from survey import STATUSES, Row

KIND, SCHEMA_VERSION = "breadth", 1
OUTPUT = "model output"  # frozen in every network, and no shortcoming
WRONG = ("failed", "changed", "wrong", "miscounted")  # no row of ours may be
SLACK = 5e-3  # of a share of parameters: ties between equal channels may fall otherwise


class Table:
    """Rows by network, in the order they came; each `add` leaves a complete file behind."""

    def __init__(self, path: Path | None, environment: dict[str, Any], resume: bool) -> None:
        self.path = path
        self.environment = environment
        self.rows = read(path) if resume and path and path.exists() else {}

    def add(self, row: Row) -> None:
        self.rows[row.name] = row
        if self.path is None:
            return
        document = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "environment": self.environment,
            "rows": [entry.to_dict() for entry in self.rows.values()],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(beside, self.path)


def read(path: Path) -> dict[str, Row]:
    """{network: row} of a file that `Table` or `kept` wrote. Raises ValueError for any other."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if (document.get("kind"), document.get("schema_version")) == (kept.KIND, 1):
        return kept.rows_of(document)
    if (document.get("kind"), document.get("schema_version")) != (KIND, SCHEMA_VERSION):
        raise ValueError(f"{path} is no table of breadth of version {SCHEMA_VERSION}")
    return {item["name"]: Row.from_dict(item) for item in document["rows"]}


def worse(old: dict[str, Row], new: dict[str, Row]) -> list[str]:
    """One line for each row that is wrong, and for each that fell back.

    A row falls back when its status does, or when one half removes a share of the parameters that
    is smaller than before by more than half a point. Rows that only the old side has are no
    comparison.
    """
    lines = [
        f"{name}: {row.status}: {problem(row)}"
        for name, row in new.items()
        if row.status in WRONG and name not in old
    ]
    for name in [name for name in old if name in new]:
        before, after = old[name], new[name]
        fell = STATUSES.index(after.status) < STATUSES.index(before.status)
        if fell or after.status in WRONG:
            lines.append(f"{name}: {before.status} became {after.status}: {problem(after)}")
        if (after.removed or 0) < (before.removed or 0) - SLACK:
            lines.append(
                f"{name}: one half removes {share(after.removed)} of the parameters, "
                f"{share(before.removed)} before; {reasons(after)}"
            )
    return lines


def better(old: dict[str, Row], new: dict[str, Row]) -> list[str]:
    """Networks whose status rose or of which one half removes more than before."""
    return [
        name
        for name in old
        if name in new
        and (
            STATUSES.index(new[name].status) > STATUSES.index(old[name].status)
            or (new[name].removed or 0) > (old[name].removed or 0) + SLACK
        )
    ]


def problem(row: Row) -> str:
    """The worst problem of a row, or ""."""
    return row.problems.get(row.status, "")


def reasons(row: Row, count: int = 2) -> str:
    """The reasons that keep most channels, with how many; "" where only the output is kept."""
    kept = [entry for entry in row.frozen if entry["reason"] != OUTPUT]
    return "; ".join(f"{entry['channels']} stay: {entry['reason']}" for entry in kept[:count])


def note(row: Row) -> str:
    """What there is to say about a row in one cell; "" where all is as it should be."""
    folded = f"{row.folded} computed weights folded" if row.folded else ""
    return "; ".join(filter(None, [folded, problem(row) or reasons(row, 1)]))


def without_place(reason: str) -> str:
    """A reason with the line of code but not the module, so that repeated blocks count as one."""
    return re.sub(r" in \S+ \(([^)]*)\)", r" (\1)", reason)


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def markdown(rows: Iterable[Row], environment: dict[str, Any]) -> str:
    """A table by family and one by network, with the versions that made them."""
    rows = list(rows)
    counts = Counter(row.status for row in rows)
    said = ", ".join(
        f"{counts[status]} {status}" for status in reversed(STATUSES) if counts[status]
    )
    versions = ", ".join(f"{key} {value}" for key, value in environment.items())
    return "\n".join(
        [f"{len(rows)} networks: {said}. {versions}.", ""]
        + _table(_BY_FAMILY, [_family(*item) for item in sorted(_families(rows).items())])
        + [""]
        + _table(_BY_NETWORK, [_network(row) for row in rows])
        + [""]
    )


_BY_FAMILY = (
    "family", "networks", "ok", "removed at 0.5, median", "least", "slowest trace, CPU s",
    "not ok", "what stays most often",
)  # fmt: skip
_BY_NETWORK = (
    "network", "size", "status", "groups", "may go", "units", "params, M", "MACs, M",
    "params removed at 0.5", "MACs removed", "cut = silenced", "shuffled", "trace, CPU s",
    "prune, CPU s", "ONNX", "error cut by a quarter", "reconstructed", "s", "peak MiB",
    "what stays, or what went wrong",
)  # fmt: skip


def _families(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(f"{row.source} {row.family}", []).append(row)
    return found


def _family(name: str, rows: list[Row]) -> list[Any]:
    removed = [row.removed for row in rows if row.removed is not None]
    kept: Counter[str] = Counter()
    for row in rows:
        for entry in row.frozen:
            if entry["reason"] != OUTPUT:
                kept[without_place(entry["reason"])] += entry["channels"]
    bad = [f"{row.name} ({row.status})" for row in rows if row.status != "ok"]
    return [
        name, len(rows), len(rows) - len(bad),
        share(median(removed) if removed else None), share(min(removed, default=None)),
        f"{max((row.seconds.get('trace_cpu', 0) for row in rows), default=0):.1f}",
        ", ".join(bad), "; ".join(f"{n}: {reason}" for reason, n in kept.most_common(2)),
    ]  # fmt: skip


def _network(row: Row) -> list[Any]:
    half = row.cuts.get("0.5", {})
    worst = [cut["relative"] for cut in row.cuts.values() if "relative" in cut]
    return [
        row.name, row.size, row.status, row.groups, row.prunable, row.units,
        f"{row.params / 1e6:.2f}", f"{row.macs / 1e6:.1f}",
        share(row.removed), share(half.get("macs_removed")),
        _small(max(worst, default=None)), _small(row.order),
        f"{row.seconds.get('trace_cpu', 0):.2f}", f"{row.seconds.get('prune_cpu', 0):.2f}",
        _small(row.onnx), *cells(row.reconstructed), note(row),
    ]  # fmt: skip


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}"


def _table(head: tuple[str, ...], rows: list[list[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    ]
