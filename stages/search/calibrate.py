"""Latency budgets: timed candidates make a table to project with; timed finalists make plans
that keep the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from stages.search.budget import Projector
from stages.search.latency import LatencyCost, fit_latency
from stages.search.setup import Setup
from stages.search.space import Counts
from stages.search.stopwatch import Stopwatch, spread_out
from stages.search.strategies import Proposal
from stages.search.trial import Trial

TRIES = 4  # corrections of one finalist
AIM = 0.995  # of the budget, so that the next timing does not miss it by noise


@dataclass(frozen=True)
class Calibration:
    """A set-up whose budget is latency, with the table and the stopwatch behind it."""

    setup: Setup
    table: LatencyCost
    base_seconds: float

    @property
    def share(self) -> float:
        """The budget as a fraction of the base's latency."""
        return self.setup.share


def calibrate(
    setup: Setup, stopwatch: Stopwatch, progress: Callable[[int, int], None]
) -> Calibration:
    """Time candidates of all sizes, fit the table, and project onto the budget with it.

    Raises:
        UsageError: the budget cannot be met, or asks for no more than the base already does.
    """
    settings, space = setup.settings, setup.space
    unlimited = Projector(space, setup.costs["macs"], setup.costs["macs"].of(space.sizes))
    samples = spread_out(space, unlimited, settings.latency_samples, setup.seed)
    found = []
    for index, counts in enumerate(samples):
        found.append(stopwatch.measure(counts))
        progress(index + 1, len(samples))
    base = float(np.median([one.base_seconds for one in found]))
    graph = setup.evaluator.graph
    table = fit_latency(graph, space.ids, samples, np.array([one.fraction for one in found]))
    share = setup.share if setup.metric == "latency" else setup.share / (base * 1e3)
    if share >= 1:
        raise UsageError(
            f"search.budget.{setup.metric}={setup.share:g} asks for nothing: the base takes {base * 1e3:.3g} ms",
            hint="--set search.budget.latency=0.5 halves it",
        )
    projector = Projector.fraction(space, table, share)
    return Calibration(
        replace(setup, projector=projector, share=share, metric="latency"), table, base
    )


def confirmed(
    calibration: Calibration, stopwatch: Stopwatch, leaders: Sequence[Trial]
) -> list[Proposal]:
    """Leaders, timed; one that misses the budget, or leaves much of it unused, is cut a little more
    or less.

    Those for which no width within the budget was found in a few tries are left out.
    """
    found: dict[tuple[int, ...], Proposal] = {}
    for trial in leaders:
        counts = within(calibration, stopwatch, trial.proposal.counts)
        if counts is not None:
            origin = trial.proposal.origin
            same = counts.tolist() == trial.proposal.counts.tolist()
            proposal = Proposal(
                counts,
                trial.proposal.action,
                origin if same else f"{origin}, fitted to measured latency",
            )
            found.setdefault(tuple(counts.tolist()), proposal)
    return list(found.values())


def within(calibration: Calibration, stopwatch: Stopwatch, wanted: Counts) -> Counts | None:
    """The candidate nearest to `wanted` in distribution, and largest, that measures within the
    budget; None after a few tries that all missed it."""
    space, projector = calibration.setup.space, calibration.setup.projector
    limit, counts, best = projector.limit, wanted, None
    for _ in range(TRIES):
        fraction = stopwatch.measure(counts).fraction
        if fraction <= calibration.share:
            fraction = stopwatch.confirm(counts).fraction
        if fraction <= calibration.share and (
            best is None or projector.cost.of(counts) > projector.cost.of(best)
        ):
            best = counts
        if AIM * 0.97 <= fraction / calibration.share <= 1:
            break
        limit *= AIM * calibration.share / fraction
        narrower = replace(projector, limit=max(limit, projector.cost.of(space.floors)))
        counts = narrower.logits(space.logits(wanted))
    return best


def report(calibration: Calibration, stopwatch: Stopwatch, best: Trial) -> dict[str, Any]:
    """The latency part of `search.json`."""
    settings, table = calibration.setup.settings, calibration.table
    counts = best.proposal.counts
    measured = stopwatch.known.get(tuple(counts.tolist()))
    pairs = [(table.of(np.array(key)), one.fraction) for key, one in stopwatch.known.items()]
    fresh = pairs[settings.latency_samples :]
    errors = [abs(predicted / fraction - 1) for predicted, fraction in fresh]
    return {
        "mode": settings.latency,
        "provider": settings.latency_provider,
        "batch": settings.latency_batch,
        "threads": settings.latency_threads,
        "base_ms": calibration.base_seconds * 1e3,
        "budget": calibration.share,
        "predicted": table.of(counts),
        "measured": measured.fraction if measured else None,
        "block": table.block,
        "samples": settings.latency_samples,
        "median_error_cross_validated": table.error,
        "median_error_fresh": float(np.median(errors)) if errors else None,
        "fresh": [{"predicted": predicted, "measured": fraction} for predicted, fraction in fresh],
    }
