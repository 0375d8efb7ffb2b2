"""What the page draws of the search: widths, scores, costs and predicted latency."""

from __future__ import annotations

from collections.abc import Sequence

from stages.report import plots
from stages.report.documents import Document, RoundDocuments
from stages.report.plots.search import CostPanel, Curve
from stages.report.plots.widths import KeptGroup
from stages.report.views.search import state_of, unit_of

_MILLIONS = 1e-6

PARETO_CAPTION = (
    "What candidates score for what they cost. All were projected onto the same budget, so its own "
    "axis, with the budget dashed, is short. A triangle at the edge stands for a score below the "
    "axis."
)
LATENCY_CAPTION = "Candidates timed after the latency table was fitted: on the line both agree."


def keep_plot(rounds: Sequence[RoundDocuments]) -> str:
    """Keep ratios of every group against the original network."""
    last = rounds[-1].search
    left = [{group["id"]: group["kept"] for group in one.search["groups"]} for one in rounds[:-1]]
    names = [row["strategy"] for row in _controls(last)]
    rows = [
        KeptGroup(
            name=group["id"],
            size=group["size"],
            kept=group["kept"],
            earlier=tuple(counts[group["id"]] for counts in left if group["id"] in counts),
            others={name: kept for name, kept in group.get("others", {}).items() if name in names},
        )
        for group in last["groups"]
    ]
    return plots.keep_ratios(rows, names)


def _controls(search: Document) -> list[Document]:
    """Rows of the strategies that were run beside the chosen one."""
    return [row for row in search["strategies"] if row["strategy"] != search["strategy"]]


def search_plot(rounds: Sequence[RoundDocuments]) -> str:
    """Candidates of the chosen strategy with the controls; empty where it tries only one."""
    curves = []
    for number, one in enumerate(rounds, 1):
        points = one.search["curve"]
        if sum(not point["stopped"] for point in points) < 2:
            return ""
        scores, best, stopped = (
            [point[key] for point in points] for key in ("score", "best", "stopped")
        )
        controls = {row["strategy"]: row["score"] for row in _controls(one.search)}
        curves.append(Curve(f"round {number}", scores, best, stopped, controls))
    return plots.search_curve(curves, unit_of(rounds[-1].search))


def pareto_plot(search: Document, trials: Sequence[Document]) -> str:
    """Candidates that saw all images by what they cost; empty where all have the same widths.

    Two panels: MACs and parameters; where latency is the budget, latency and MACs.

    Args:
        trials: lines of trials.jsonl.
    """
    whole = [
        trial
        for trial in trials
        if trial.get("phase") == search["strategy"] and trial["eligible"] and not trial["stopped"]
    ]
    if len({tuple(trial["kept"]) for trial in whole}) < 2:
        return ""
    metrics = {
        "macs": ("MACs of one image, millions", _MILLIONS),
        "params": ("parameters, millions", _MILLIONS),
    }
    base_ms = search.get("latency", {}).get("base_ms")
    if base_ms and "latency" in whole[0]:
        metrics = {"latency": ("predicted latency, ms", base_ms), **metrics}
    panels = [
        _cost_panel(search, whole, metric, label, unit)
        for metric, (label, unit) in list(metrics.items())[:2]
    ]
    return plots.pareto(panels, unit_of(search))


def _cost_panel(
    search: Document, whole: Sequence[Document], metric: str, label: str, unit: float
) -> CostPanel:
    """Candidates by one metric, in multiples of `unit`."""
    top = next(row for row in search["strategies"] if row["strategy"] == search["strategy"])
    kept = [group["kept"] for group in search["groups"]]
    # where trials lack its widths, the chosen strategy's best stands for the plan; groups that
    # went in an earlier round come last, and are none of theirs
    plan = next((trial for trial in whole if trial["kept"] == kept[: len(trial["kept"])]), top)
    budget = search["budget"]
    return CostPanel(
        label,
        [(trial[metric] * unit, trial["score"]) for trial in whole],
        (plan.get(metric, top[metric]) * unit, plan["score"]),
        {
            row["strategy"]: (row[metric] * unit, row["score"])
            for row in _controls(search)
            if metric in row
        },
        budget["limit"] * unit if budget["metric"] == metric else None,
    )


_COSTS = {
    "macs": "MACs, % of the original's",
    "params": "parameters, % of the original's",
    "latency": "latency, % of the original's",
}


def front_plot(front: Document, search: Document, reconstruction: Document) -> str:
    """What every budget costs in accuracy, and the plan as it was reconstructed; empty below two
    points.
    """
    metric, points = front["metric"], front["points"]
    if len(points) < 2:
        return ""
    whole = front["original"].get(metric, 1.0)
    measured, predicted = (
        [
            (100 * point[metric] / whole, 100 * point["accuracy"])
            for point in points
            if point["measured"] is kind
        ]
        for kind in (True, False)
    )
    spent = search["budget"]["realised"][metric]["fraction"]
    reached = reconstruction["accuracy"].get("reconstructed")
    plan = None if reached is None else (100 * spent, 100 * reached)
    return plots.front(measured, predicted, plan, _COSTS[metric])


def front_caption(front: Document) -> str:
    """What its points are."""
    drawn = {point["measured"] for point in front["points"]}
    filled = "Filled points were cut, reconstructed and scored. " if True in drawn else ""
    source = "those" if True in drawn else "what the candidates scored"
    hollow = f"Hollow points are predicted from {source}. " if False in drawn else ""
    return (
        "What every budget costs in accuracy on the search split, without training. "
        f"{filled}{hollow}The star is the plan after least squares."
    )


def latency_plot(search: Document) -> str:
    """Prediction against measurement of candidates timed after the fit; empty below two."""
    found = search.get("latency")
    if not found or len(found["fresh"]) < 2:
        return ""
    ms = found["base_ms"]
    return plots.predicted_against_measured(
        [(one["predicted"] * ms, one["measured"] * ms) for one in found["fresh"]]
    )


def search_caption(search: Document) -> str:
    """What the scores of all candidates are, and of how many images."""
    mine = next(row for row in search["strategies"] if row["strategy"] == search["strategy"])
    return (
        f"Score of every candidate in the order they were tried, {state_of(mine)}, each on "
        f"{mine['images']:,} images but for those that were stopped early. A triangle at the edge "
        "stands for a score below the axis."
    )
