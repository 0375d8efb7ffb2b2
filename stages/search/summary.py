"""`search.json`: what was searched, found, and compared with, as plain JSON types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.prune import ChannelPlan
from stages.search.engine import Search, Trial, ranked
from stages.search.setup import Setup

SCHEMA_VERSION = 1


def plan_of(setup: Setup, best: Trial) -> ChannelPlan:
    """The plan of a trial; its metadata say what was asked and what it realises."""
    counts, space, sizes = best.proposal.counts, setup.space, setup.space.sizes.tolist()
    metadata = {
        "strategy": setup.settings.strategy,
        "origin": f"{best.phase}: {best.proposal.origin}",
        "seed": setup.seed,
        "criterion": setup.settings.criterion,
        "align": setup.settings.align,
        "budget": budget(setup, best),
        "score": best.outcome.score,
        "search_accuracy": best.outcome.accuracy,
        "widths": {name: [size, kept] for name, size, kept in zip(space.ids, sizes, counts.tolist(), strict=True)},
    }
    return ChannelPlan(setup.evaluator.ranking.keep(counts), metadata)


def budget(setup: Setup, best: Trial) -> dict[str, Any]:
    """Asked and realised, as fractions of the base and as absolute counts; latency as predicted."""
    metric, asked = setup.metric, setup.share
    base, after = setup.cost(setup.space.sizes), setup.cost(best.proposal.counts)
    realised = {
        name: {"base": base[name], "pruned": after[name], "fraction": after[name] / base[name]} for name in base
    }
    if metric not in realised:
        realised[metric] = {
            "base": 1.0,
            "pruned": (share := setup.projector.cost.of(best.proposal.counts)),
            "fraction": share,
        }
    return {"metric": metric, "asked": asked, "limit": setup.projector.limit, "realised": realised}


def row(setup: Setup, trial: Trial, trials: int = 1) -> dict[str, Any]:
    """One line of the strategies table."""
    outcome = trial.outcome
    return {
        "strategy": trial.phase,
        "trials": trials,
        "score": outcome.score,
        "accuracy": outcome.accuracy,
        "images": outcome.images,
        **setup.cost(trial.proposal.counts),
    }


def curve(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Score of every trial and the best complete one so far."""
    best: float | None = None
    points = []
    for trial in trials:
        if trial.proposal.eligible and not trial.outcome.stopped:
            best = trial.outcome.score if best is None else max(best, trial.outcome.score)
        outcome = trial.outcome
        points.append({"trial": trial.index, "score": outcome.score, "best": best, "stopped": outcome.stopped})
    return points


def pareto(setup: Setup, trials: Sequence[Trial], metric: str = "macs") -> list[dict[str, Any]]:
    """Candidates that no other beats in both cost and score, cheapest first."""
    points = [(setup.cost(t.proposal.counts)[metric], -t.outcome.score, t) for t in ranked(trials)]
    front: list[dict[str, Any]] = []
    lowest = float("inf")
    for cost, loss, trial in sorted(points, key=lambda point: point[:2]):
        if loss < lowest:
            lowest = loss
            front.append({metric: cost, "score": trial.outcome.score, "accuracy": trial.outcome.accuracy})
    return front


def groups(setup: Setup, best: Trial, tops: Mapping[str, Trial]) -> list[dict[str, Any]]:
    """Per group: units before, after, and in the best candidate of every strategy."""
    rows = []
    for index, (name, size) in enumerate(zip(setup.space.ids, setup.space.sizes.tolist(), strict=True)):
        others = {strategy: int(trial.proposal.counts[index]) for strategy, trial in tops.items()}
        rows.append({"id": name, "size": size, "kept": int(best.proposal.counts[index]), "others": others})
    return rows


def summary(
    setup: Setup,
    search: Search,
    phases: Mapping[str, Sequence[Trial]],
    best: Trial,
    findings: Sequence[str],
) -> dict[str, Any]:
    """All of it. `phases` maps strategy names, and "finalists", to their trials."""
    settings, main = setup.settings, phases[setup.settings.strategy]
    score, accuracy = setup.evaluator.base()
    tops = {name: ranked(trials) for name, trials in phases.items() if name != "finalists"}
    everything = [trial for found in phases.values() for trial in found]
    return {
        "schema_version": SCHEMA_VERSION,
        "strategy": settings.strategy,
        "seed": setup.seed,
        "score_name": settings.score,
        "budget": budget(setup, best),
        "base": {"score": score, "accuracy": accuracy, **setup.cost(setup.space.sizes)},
        "best": row(setup, best),
        "strategies": [row(setup, found[0], len(phases[name])) for name, found in tops.items() if found],
        "finalists": [row(setup, trial) for trial in phases.get("finalists", ())],
        "trials": len(main),
        "cache_hits": sum(trial.cached for trial in main),
        "stopped_early": sum(trial.outcome.stopped for trial in main),
        "seconds": round(sum(trial.outcome.seconds for trial in everything if not trial.cached), 3),
        "curve": curve(main),
        "pareto": pareto(setup, main),
        "groups": groups(setup, best, {name: found[0] for name, found in tops.items() if found}),
        "findings": list(findings),
    }
