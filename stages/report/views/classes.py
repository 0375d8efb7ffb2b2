"""Accuracy class by class before and after, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.paired import paired_change
from stages.report import plots
from stages.report.documents import Document

_MOST_ROWS = 20  # of a table that is read as a whole
_MOST_PAIRS = 10


@dataclass(frozen=True)
class Classes:
    """What the page says of classes.

    Attributes:
        rows: a class each; of many classes those with most flips.
        more: all of them, where `rows` are not.
        pairs: true and named class that are confused most, before and after.
        matrix: rows of cells, where they are few; else `plot`.
        smallest: the change that a class needs to be marked.
    """

    rows: list[dict[str, Any]]
    more: list[dict[str, Any]]
    pairs: list[dict[str, str]]
    names: list[str]
    matrix: list[list[dict[str, Any]]]
    plot: str
    marked: int


def class_block(benchmark: Document, names: Sequence[str]) -> Classes | None:
    """None for runs of older releases, which counted no classes."""
    counts = benchmark.get("classes")
    if counts is None:
        return None
    known = [names[n] if n < len(names) else str(n) for n in range(len(counts["images"]))]
    rows = [_class_row(counts, number, name) for number, name in enumerate(known)]
    few = len(rows) <= _MOST_ROWS
    moved = sorted(rows, key=lambda row: (-row["flips"], row["name"]))[:_MOST_ROWS]
    table = counts["confusion"]
    return Classes(
        rows=rows if few else moved,
        more=[] if few else rows,
        pairs=_pairs(table, known) if table else [],
        names=known,
        matrix=_matrix(table) if table and few else [],
        plot=plots.confusion(table["final"]) if table and not few else "",
        marked=sum(row["shown"] for row in rows),
    )


def _class_row(counts: Document, number: int, name: str) -> dict[str, Any]:
    """A class, marked where its change is shown: at 5 % for all classes together (Bonferroni)."""
    keys = ("images", "base", "final", "gained", "lost")
    images, base, final, gained, lost = (counts[key][number] for key in keys)
    shown = False
    if images:
        p_value = paired_change(images, gained, lost)["p_value"]
        shown = bool(p_value * len(counts["images"]) < 0.05)
    points = 100 * (final - base) / images if images else 0.0
    return {
        "name": name,
        "images": f"{images:,}",
        "before": f"{base / images:.1%}" if images else "",
        "after": f"{final / images:.1%}" if images else "",
        "change": f"{points:+.1f}{' *' if shown else ''}" if images else "",
        "gained": str(gained),
        "lost": str(lost),
        "flips": gained + lost,
        "shown": shown,
    }


def _pairs(table: Document, names: Sequence[str]) -> list[dict[str, str]]:
    final, base = table["final"], table["base"]
    found = [
        (count, true, named)
        for true, row in enumerate(final)
        for named, count in enumerate(row)
        if count and named != true
    ]
    return [
        {
            "true": names[true],
            "named": names[named],
            "before": f"{base[true][named]:,}",
            "after": f"{count:,}",
        }
        for count, true, named in sorted(found, key=lambda one: (-one[0], *one[1:]))[:_MOST_PAIRS]
    ]


def _matrix(table: Document) -> list[list[dict[str, Any]]]:
    """Cells with the count after, the change from before, and how dark they are, 0 to 100."""
    return [
        [
            {
                "count": f"{after:,}" if after else "",
                "change": f"{after - before:+,}" if after != before else "",
                "shade": round(100 * (after / max(sum(row), 1)) ** 0.5),
                "right": true == named,
            }
            for named, (before, after) in enumerate(zip(table["base"][true], row, strict=True))
        ]
        for true, row in enumerate(table["final"])
    ]
