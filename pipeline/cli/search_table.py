"""What `rlp search compare` prints: the table, paired differences, the rank correlation; and the
table of `rlp search front`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import console

Document = Mapping[str, Any]


def show(doc: Document, score: str) -> None:
    """The document of a comparison, for people; `score` names what candidates were scored by."""
    timed = any(row["measured"] is not None for row in doc["table"])
    head = (
        "strategy",
        "seeds",
        "evaluations",
        f"score ({score})",
        "accuracy as scored",
        "after recovery",
        "latency, of the original" if timed else "cost",
        "search",
    )
    console.table(head, [_row(row, timed) for row in doc["table"]])
    if doc["over_seconds"]:
        _show_over_seconds(doc["over_seconds"])
    if doc["distill"]:
        console.say(_recipe(doc["distill"]))
    for row in doc["differences"]:
        console.say(f"{doc['strategies'][0]} − {_difference(row)}")
    if doc["rank_correlation_score_recovered"] is not None:
        console.say(_correlation(doc))


def _row(row: Document, timed: bool) -> tuple[object, ...]:
    measured = timed and row["measured"] is not None
    return (
        row["strategy"],
        row["seeds"],
        row["evaluations"],
        _spread(row, "score", ".4f"),
        _spread(row, "accuracy", ".2%"),
        _spread(row, "recovered", ".2%"),
        format(row["measured"], ".3f") if measured else format(row["cost"], ".4g"),
        f"{row['seconds']:.1f} s"
        + (f" + {table:.1f} s" if (table := row["table_seconds"]) else ""),
    )


def _show_over_seconds(rows: Sequence[Document]) -> None:
    """The best score so far, by the seconds of evaluations and loss table."""
    head = ("best score after", *(f"{seconds:.3g} s" for seconds in rows[0]["seconds"]))
    shown = [["" if score is None else f"{score:.4f}" for score in row["scores"]] for row in rows]
    console.table(head, [(row["strategy"], *own) for row, own in zip(rows, shown, strict=True)])


def _spread(row: Document, key: str, style: str) -> str:
    """Mean ± standard deviation, and the number of seeds where that is not all of them."""
    if key not in row:
        return ""
    sd, count = row[f"{key}_sd"], row[f"{key}_seeds"]
    text = format(row[key], style) + ("" if sd is None else f" ± {format(sd, style)}")
    return text if count == row["seeds"] else f"{text} ({count})"


def _recipe(recipe: Document) -> str:
    seeds = ", ".join(str(seed) for seed in recipe["seeds"])
    how = f"{recipe['epochs']} epochs on {recipe['images']:,} train images, seeds {seeds}"
    return (
        f"recovery: {how}; ± is the standard deviation over seeds; "
        "accuracies are on the search split"
    )


def _difference(row: Document) -> str:
    low, high = ("–" if row[end] is None else f"{row[end]:+.4f}" for end in ("low", "high"))
    found = f"{row['mean']:+.4f}, 95 % interval {low} to {high} ({row['seeds']} seeds)"
    return f"{row['strategy']}, {row['measure']}: {found}: {row['verdict']}"


def _correlation(doc: Document) -> str:
    p, count = doc["rank_correlation_p"], doc["rank_correlation_candidates"]
    value = doc["rank_correlation_score_recovered"]
    verdict = "" if p < 0.05 else ": not shown"
    return (
        f"rank correlation of search score and recovered accuracy: {value:.2f} over "
        f"{count} candidates (p = {p:.3f}){verdict}"
    )


def show_front(doc: Document) -> None:
    """The document of a front, for people."""
    timed = doc["metric"] == "latency"
    costs = ("macs", "params", *(("latency",) if timed else ()))
    head = ("budget", "MACs", "parameters", *(("latency",) if timed else ()))
    head += ("loss, nats", "accuracy", "", "points lost")
    rows = [_point(point, doc["original"], costs) for point in doc["points"]]
    console.table(head, rows, right=tuple(name for name in head if name))
    if doc.get("precision") == "int8":
        console.say("latencies are in INT8, as shares of what the original takes in fp32")
    console.say("accuracies are on the search split, after least squares and without training")
    console.say(f"front  {doc['file']}")


def _point(point: Document, original: Document, costs: Sequence[str]) -> tuple[object, ...]:
    """Shares of the original's costs; latency is one already."""
    shares = (point[cost] / original.get(cost, 1) for cost in costs)
    return (
        f"{point['budget']:.1%}",
        *(f"{share:.1%}" for share in shares),
        f"{point['loss']:.4f}",
        f"{point['accuracy']:.2%}",
        "measured" if point["measured"] else "predicted",
        f"{100 * (original['accuracy'] - point['accuracy']):.2f}",
    )
