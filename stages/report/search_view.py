"""What the page says about the search: sentences, tables and plots, of the last round and of
all rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report import plots
from stages.report.plots import CostPanel, Curve, KeptGroup

Document = Mapping[str, Any]
METRICS = {"macs": "MACs", "params": "parameters", "latency": "latency", "latency_ms": "latency"}
UNITS = {
    "divergence": "−KL to the original's outputs, nats",
    "likelihood": "log-likelihood, nats",
    "accuracy": "top-1 accuracy",
}


@dataclass(frozen=True)
class Round:
    """The artefacts of one round: search.json, prune.json, distill.json."""

    search: Document
    cut: Document
    distillation: Document


def channel_sentence(search: Document, graph: Document) -> str:
    """How many channels went, and how many groups could not be touched."""
    before = sum(group["size"] for group in search["groups"])
    after = sum(group["kept"] for group in search["groups"])
    frozen = sum(not group["prunable"] for group in graph["groups"])
    cut = f"{before - after:,} of {before:,} channels in {len(search['groups'])} groups were cut"
    return f"{cut}; {frozen} group{'s are' if frozen != 1 else ' is'} frozen."


def search_sentence(search: Document) -> str:
    """What was asked, what was realised, how hard was looked."""
    budget = search["budget"]
    realised = (
        budget["realised"][budget["metric"]]["fraction"]
        if budget["metric"] in budget["realised"]
        else None
    )
    got = "" if realised is None else f", realised {realised:.1%}"
    metric = METRICS[budget["metric"]]
    steps = search["best"].get("distill_steps", 0)
    state = f"after {steps} steps of distillation" if steps else "before recovery"
    return (
        f"Strategy {search['strategy']}, {search['trials']} candidates; budget {budget['asked']:.0%} of the base's "
        f"{metric}{got}. Accuracy of the chosen cut {state}: {search['best']['accuracy']:.2%} on the "
        f"search split, the base {search['base']['accuracy']:.2%}."
    )


def unit_of(search: Document) -> str:
    """What a score is, and in which unit."""
    return UNITS.get(search.get("score_name", ""), "on the search split")


def strategy_rows(search: Document) -> list[dict[str, Any]]:
    """The best candidate of the chosen strategy and of every control, then what became the plan."""
    base, best = search["base"], search["best"]
    rows = []
    for row in sorted(search["strategies"], key=lambda row: -row["score"]):
        count = f"{row['trials']:,} candidate{'s' if row['trials'] != 1 else ''}"
        mine = row["strategy"] == search["strategy"]
        rows.append({"name": row["strategy"], "what": count, "mine": mine, **_cells(row, base)})
    if search.get("finalists"):
        what = f"best of {len(search['finalists'])} finalists"
        rows.append({"name": "the plan", "what": what, "mine": True, **_cells(best, base)})
    return rows


def _cells(row: Document, base: Document) -> dict[str, str]:
    return {
        "score": f"{row['score']:.4f}",
        "accuracy": f"{row['accuracy']:.2%}",
        "images": f"{row['images']:,}",
        "macs": f"{row['macs'] / base['macs']:.1%}",
        "params": f"{row['params'] / base['params']:.1%}",
        "latency": f"{row['latency']:.1%}" if "latency" in row else "",
    }


def round_rows(rounds: Sequence[Round]) -> list[dict[str, str]]:
    """One row a round, every share of the original network; accuracies on the search split."""
    rows = []
    for number, one in enumerate(rounds, 1):
        budget, accuracy = one.search["budget"], one.distillation["search_accuracy"]
        realised = budget["realised"]
        rows.append(
            {
                "name": f"{number} of {len(rounds)}",
                "asked": f"{METRICS[budget['metric']]} {budget['asked']:.1%}",
                "got": f"{realised[budget['metric']]['fraction']:.1%}",
                "macs": f"{realised['macs']['fraction']:.1%}",
                "params": f"{realised['params']['fraction']:.1%}",
                "cut": f"{accuracy['cut']:.2%}",
                "final": f"{accuracy['final']:.2%}",
            }
        )
    return rows


def keep_plot(rounds: Sequence[Round]) -> str:
    """Keep ratios of every group against the original network."""
    last = rounds[-1].search
    left = [{group["id"]: group["kept"] for group in one.search["groups"]} for one in rounds[:-1]]
    names = [row["strategy"] for row in last["strategies"] if row["strategy"] != last["strategy"]]
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


def layer_rows(cut: Document) -> list[dict[str, str]]:
    """Every layer that multiplies: channels and MACs before and after."""
    rows = []
    for before, after in zip(cut["layers"]["before"], cut["layers"]["after"], strict=True):
        if not before["macs"]:
            continue
        rows.append(
            {
                "name": before["name"],
                "type": before["type"],
                "into": f"{before['in_channels']:,} → {after['in_channels']:,}",
                "out": f"{before['out_channels']:,} → {after['out_channels']:,}",
                "kept": f"{after['out_channels'] / before['out_channels']:.0%}"
                if before["out_channels"]
                else "",
                "macs": f"{before['macs']:,} → {after['macs']:,}",
                "share": f"{after['macs'] / before['macs']:.0%}",
            }
        )
    return rows


def search_plot(rounds: Sequence[Round]) -> str:
    """Candidates of the learned policy with the controls; empty for strategies that do not
    search.
    """
    curves = []
    for number, one in enumerate(rounds, 1):
        points = one.search["curve"]
        controls = {
            r["strategy"]: r["score"]
            for r in one.search["strategies"]
            if r["strategy"] != one.search["strategy"]
        }
        if sum(not point["stopped"] for point in points) > 1:
            scores, best, stopped = (
                [point[key] for point in points] for key in ("score", "best", "stopped")
            )
            curves.append(Curve(f"round {number}", scores, best, stopped, controls))
    return (
        plots.search_curve(curves, unit_of(rounds[-1].search)) if len(curves) == len(rounds) else ""
    )


def pareto_plot(search: Document, trials: Sequence[Document]) -> str:
    """Candidates that saw all images by what they cost: latency where it is the budget, MACs,
    parameters.

    Args:
        trials: lines of trials.jsonl.
    """
    whole = [
        t
        for t in trials
        if t.get("phase") == search["strategy"] and t["eligible"] and not t["stopped"]
    ]
    if len({tuple(trial["kept"]) for trial in whole}) < 2:
        return ""
    top = next(row for row in search["strategies"] if row["strategy"] == search["strategy"])
    plan = next(
        (t for t in whole if t["kept"] == [group["kept"] for group in search["groups"]]), top
    )
    controls = [row for row in search["strategies"] if row["strategy"] != search["strategy"]]
    base_ms = search.get("latency", {}).get("base_ms")
    metrics = (
        {"latency": ("predicted latency, ms", base_ms)} if base_ms and "latency" in whole[0] else {}
    )
    metrics |= {
        "macs": ("MACs of one image, millions", 1e-6),
        "params": ("parameters, millions", 1e-6),
    }
    budget = search["budget"]
    panels = []
    for metric, (label, unit) in list(metrics.items())[:2]:
        limit = budget["limit"] * unit if budget["metric"] == metric else None
        near = {
            row["strategy"]: (row[metric] * unit, row["score"]) for row in controls if metric in row
        }
        points = [(trial[metric] * unit, trial["score"]) for trial in whole]
        panels.append(
            CostPanel(
                label, points, (plan.get(metric, top[metric]) * unit, plan["score"]), near, limit
            )
        )
    return plots.pareto(panels, unit_of(search))


def latency_sentence(search: Document) -> str:
    """How well the latency table predicts; empty where latency was no budget."""
    found = search.get("latency")
    if not found:
        return ""
    cross, fresh = found["median_error_cross_validated"], found["median_error_fresh"]
    after = (
        f", and {fresh:.1%} on {len(found['fresh'])} candidates timed after it was fitted"
        if found["fresh"]
        else ""
    )
    measured = f", measured {found['measured']:.1%}" if found["measured"] else ""
    return (
        f"The latency table was fitted to {found['samples']} candidates timed on this machine ({found['provider']}, "
        f"batch {found['batch']}, {found['threads']} thread{'s' if found['threads'] != 1 else ''}; the base takes "
        f"{found['base_ms']:.3f} ms). Median error of its predictions: {cross:.1%} cross-validated{after}. "
        f"The plan: predicted {found['predicted']:.1%} of the base's latency{measured}, {found['budget']:.1%} allowed."
    )


def latency_plot(search: Document) -> str:
    """Prediction against measurement for candidates timed after the table was fitted; empty
    below two.
    """
    found = search.get("latency")
    pairs = (
        [
            (p["predicted"] * found["base_ms"], p["measured"] * found["base_ms"])
            for p in found["fresh"]
        ]
        if found
        else []
    )
    return plots.predicted_against_measured(pairs) if len(pairs) > 1 else ""
