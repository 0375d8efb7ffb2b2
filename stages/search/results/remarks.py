"""Where a search came out clearly otherwise than asked, with the number and what to type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import Command, Set

_CLEARLY = 0.1  # of what was asked for


def remarks_on(document: Mapping[str, Any], align: int, samples: int, again: Command) -> list[str]:
    """One sentence for each.

    Args:
        document: `search.json`.
        align: channels that widths are multiples of.
        samples: candidates that the latency table was fitted to.
        again: the command that runs the search anew.
    """
    return [*_table(document.get("latency"), samples, again), *_unused(document, align, again)]


def _table(latency: Mapping[str, Any] | None, samples: int, again: Command) -> Iterator[str]:
    if latency is None:
        return
    of_table, fresh = latency["median_error_cross_validated"], latency["median_error_fresh"]
    error = max(of_table, fresh or 0.0)
    if error > _CLEARLY:
        more = Set("search.latency_samples", 2 * samples)
        measured = latency.get("measured")
        what = "budgets may be missed by as much"
        if measured is not None:
            what = f"the plan itself was timed, at {measured:.1%} of the original"
        yield (
            f"the latency table is off by {error:.0%} (median), fitted to {samples} candidates: "
            f"{what}; with more, on a quiet machine: {again.with_settings(more)}"
        )


def _unused(document: Mapping[str, Any], align: int, again: Command) -> Iterator[str]:
    budget = document["budget"]
    if "accuracy_drop" in budget or align < 2:  # found by the search itself; nothing finer
        return
    metric, asked = budget["metric"], budget["asked"]
    got = budget["realised"][metric]["fraction"]
    if metric == "latency":  # by the clock where it was asked, for the table errs
        got = document["latency"].get("measured") or got
    if got < (1 - _CLEARLY) * asked:
        finer = again.with_settings(Set("search.align", align // 2))
        yield (
            f"the plan keeps {got:.1%} of the base's {metric} where {asked:.1%} may stay, for "
            f"widths are multiples of {align}: {finer}"
        )
