"""The table of breadth that stays with the results: a line a network, short enough to be read.

    "resnet18": {"source": "timm", "removed": 0.7391, "frozen": 1},

`removed` is the share of the parameters that a uniform cut of one half removes, `frozen` the number
of groups that stay, the output's among them; a `status` stands there where it is not "ok".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from survey import HALF, Row

KIND = "breadth_kept"


def rows_of(document: Mapping[str, Any]) -> dict[str, Row]:
    """Rows of a kept table, by network; empty but for what it holds."""
    return {name: _row(name, entry) for name, entry in document["networks"].items()}


def write(path: Path, rows: Iterable[Row], environment: Mapping[str, str]) -> None:
    """Put rows in the place of those of the same networks; others stay as they are."""
    known = json.loads(path.read_text(encoding="utf-8"))["networks"] if path.exists() else {}
    known |= {row.name: _entry(row) for row in rows if row.status != "unbuilt"}
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in known.items()]
    head = f'{{"kind": "{KIND}", "schema_version": 1,\n "environment": {json.dumps(environment)},'
    text = f'{head}\n "networks": {{\n' + ",\n".join(lines) + "\n }}\n"
    path.write_text(text, encoding="utf-8")


def _entry(row: Row) -> dict[str, Any]:
    status = {} if row.status == "ok" else {"status": row.status}
    frozen = row.groups - row.prunable
    return {"source": row.source, "removed": row.removed, "frozen": frozen, **status}


def _row(name: str, entry: Mapping[str, Any]) -> Row:
    cuts = {} if entry["removed"] is None else {HALF: {"params_removed": entry["removed"]}}
    problems = {entry["status"]: ""} if "status" in entry else {}
    return Row(name, entry["source"], groups=entry["frozen"], cuts=cuts, problems=problems)
