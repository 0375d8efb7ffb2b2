"""`search.json`: what was searched, found, and compared with, as plain JSON types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.prune import ChannelPlan
from stages.search.engine import Search, ranked
from stages.search.origin import Origin
from stages.search.setup import FINAL_STEPS, Setup
from stages.search.space import Counts
from stages.search.trial import Trial

SCHEMA_VERSION = 1


def plan_of(setup: Setup, origin: Origin, best: Trial) -> ChannelPlan:
    """The plan of a trial; its metadata say what was asked and what it realises, counted from
    the original.
    """
    counts, space, sizes = best.proposal.counts, setup.space, _sizes(setup, origin)
    metadata = {
        "strategy": setup.settings.strategy,
        "origin": f"{best.phase}: {best.proposal.origin}",
        "seed": setup.seed,
        "criterion": setup.settings.criterion,
        "align": setup.settings.align,
        "budget": budget(setup, origin, best),
        "score": best.outcome.score,
        "search_accuracy": best.outcome.accuracy,
        "widths": {
            name: [size, kept]
            for name, size, kept in zip(space.ids, sizes, counts.tolist(), strict=True)
        },
    }
    return ChannelPlan(setup.evaluator.ranking.keep(counts), metadata)


def _sizes(setup: Setup, origin: Origin) -> list[int]:
    """Units of the space's groups in the original."""
    found = zip(setup.space.ids, setup.space.sizes.tolist(), strict=True)
    return [origin.sizes.get(name, size) for name, size in found]


def costs(setup: Setup, origin: Origin, counts: Counts) -> dict[str, float]:
    """MACs and parameters; where latency is the budget also that, as predicted, as a fraction
    of the original's.
    """
    found: dict[str, float] = dict(setup.cost(counts))
    if setup.metric not in found:
        found["latency"] = setup.projector.cost.of(counts) * origin.latency
    return found


def budget(setup: Setup, origin: Origin, best: Trial) -> dict[str, Any]:
    """Asked and realised, as fractions of the original and as absolute counts; latency as
    predicted.
    """
    metric = setup.metric
    asked = setup.share if origin.rounds == 1 else origin.asked
    limit = setup.projector.limit * (origin.latency if metric == "latency" else 1)
    base, after = origin.costs, setup.cost(best.proposal.counts)
    realised = {
        name: {"base": base[name], "pruned": after[name], "fraction": after[name] / base[name]}
        for name in base
    }
    if metric not in realised:
        realised[metric] = {
            "base": 1.0,
            "pruned": (share := costs(setup, origin, best.proposal.counts)["latency"]),
            "fraction": share,
        }
    return {"metric": metric, "asked": asked, "limit": limit, "realised": realised}


def row(setup: Setup, origin: Origin, trial: Trial, trials: int = 1) -> dict[str, Any]:
    """One line of the strategies table."""
    outcome = trial.outcome
    return {
        "strategy": trial.phase,
        "trials": trials,
        "score": outcome.score,
        "accuracy": outcome.accuracy,
        "images": outcome.images,
        "distill_steps": setup.settings.distill_steps
        * (FINAL_STEPS if trial.phase == "finalists" else 1),
        **costs(setup, origin, trial.proposal.counts),
    }


def curve(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Score of every trial and the best complete one so far."""
    best: float | None = None
    points = []
    for trial in trials:
        if trial.proposal.eligible and not trial.outcome.stopped:
            best = trial.outcome.score if best is None else max(best, trial.outcome.score)
        outcome = trial.outcome
        points.append(
            {"trial": trial.index, "score": outcome.score, "best": best, "stopped": outcome.stopped}
        )
    return points


def pareto(setup: Setup, origin: Origin, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Candidates that no other beats in both cost and score, cheapest first; cost is latency if
    that is the budget.
    """
    metric = "latency" if setup.metric == "latency" else "macs"
    points = [
        (costs(setup, origin, t.proposal.counts)[metric], -t.outcome.score, t)
        for t in ranked(trials)
    ]
    front: list[dict[str, Any]] = []
    lowest = float("inf")
    for cost, loss, trial in sorted(points, key=lambda point: point[:2]):
        if loss < lowest:
            lowest = loss
            front.append(
                {metric: cost, "score": trial.outcome.score, "accuracy": trial.outcome.accuracy}
            )
    return front


def groups(
    setup: Setup, origin: Origin, best: Trial, tops: Mapping[str, Trial]
) -> list[dict[str, Any]]:
    """Per group: units in the original, after, and in the best candidate of every strategy."""
    rows = []
    for index, (name, size) in enumerate(zip(setup.space.ids, _sizes(setup, origin), strict=True)):
        others = {strategy: int(trial.proposal.counts[index]) for strategy, trial in tops.items()}
        rows.append(
            {"id": name, "size": size, "kept": int(best.proposal.counts[index]), "others": others}
        )
    return rows


def summary(
    setup: Setup,
    origin: Origin,
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
    several = {"round": {"number": origin.number, "of": origin.rounds}} if origin.rounds > 1 else {}
    return {
        "schema_version": SCHEMA_VERSION,
        **several,
        "strategy": settings.strategy,
        "seed": setup.seed,
        "score_name": settings.score,
        "budget": budget(setup, origin, best),
        "base": {"score": score, "accuracy": accuracy, **origin.costs},
        "best": row(setup, origin, best),
        "strategies": [
            row(setup, origin, found[0], len(phases[name])) for name, found in tops.items() if found
        ],
        "finalists": [row(setup, origin, trial) for trial in phases.get("finalists", ())],
        "trials": len(main),
        "cache_hits": sum(trial.cached for trial in main),
        "stopped_early": sum(trial.outcome.stopped for trial in main),
        "seconds": round(sum(trial.outcome.seconds for trial in everything if not trial.cached), 3),
        "curve": curve(main),
        "pareto": pareto(setup, origin, main),
        "groups": groups(
            setup, origin, best, {name: found[0] for name, found in tops.items() if found}
        ),
        "findings": list(findings),
    }
