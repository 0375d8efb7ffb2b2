"""`search.json` and `plan.json`: what was searched, found and compared with, as plain JSON types.

Every share is one of the original network, in every round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.channels.branch import stand_ins_of
from pipeline.channels.plan import ChannelPlan
from stages.search.evaluation.trial import Trial, ranked
from stages.search.latency.table import Calibration
from stages.search.latency.timer import CandidateTimer
from stages.search.problem import SearchProblem
from stages.search.tables.loss_table import LossTable

FINALISTS = "finalists"
"""Phase of the leaders that are scored once more."""

Document = dict[str, Any]
Phases = Mapping[str, Sequence[Trial]]
"""Trials by strategy name, and those of `FINALISTS`."""


@dataclass(frozen=True)
class Summary:
    """What one search found.

    Attributes:
        best: the trial that becomes the plan.
        findings: sentences of the strategy that the user should read.
        constants: what is no setting and yet shaped the result.
    """

    problem: SearchProblem
    phases: Phases
    best: Trial
    findings: Sequence[str] = ()
    constants: Mapping[str, Any] | None = None

    def plan(self) -> ChannelPlan:
        """The plan; its metadata say what was asked and what it realises."""
        problem, best = self.problem, self.best
        counts, sizes = best.candidate.counts.tolist(), self._sizes()
        names = problem.space.ids
        metadata = {
            "strategy": problem.settings.strategy,
            "origin": f"{best.phase}: {best.candidate.proposed_as}",
            "seed": problem.seed,
            "criterion": problem.settings.criterion,
            "align": problem.align,
            **({"precision": problem.calibration.precision} if problem.calibration else {}),
            "budget": self.budget(),
            "score": best.outcome.score,
            "search_accuracy": best.outcome.accuracy,
            "widths": {
                name: [size, kept] for name, size, kept in zip(names, sizes, counts, strict=True)
            },
        }
        keep = problem.ranking.keep(best.candidate.counts)
        return ChannelPlan.of(problem.network.graph, keep, metadata)

    def document(self) -> Document:
        """`search.json` but for what only the session knows (timings, alignment, policy)."""
        problem, settings = self.problem, self.problem.settings
        main = self.phases[settings.strategy]
        everything = [trial for trials in self.phases.values() for trial in trials]
        score, accuracy = problem.evaluator.of_original()
        original = {"score": score, "accuracy": accuracy, **problem.original.costs}
        finals = self.phases.get(FINALISTS, ())
        seconds = sum(trial.outcome.seconds for trial in everything if not trial.cached)
        tops = self._tops()
        return {
            **self._round(),
            "strategy": settings.strategy,
            "seed": problem.seed,
            "score_name": settings.score,
            "budget": self.budget(),
            "base": original,
            "best": self._row(self.best),
            "strategies": [self._row(t, len(self.phases[name])) for name, t in tops.items()],
            "finalists": [self._row(trial) for trial in finals],
            "trials": len(main),
            "cache_hits": sum(trial.cached for trial in main),
            "stopped_early": sum(trial.outcome.stopped for trial in main),
            "seconds": round(seconds, 3),
            "curve": curve(main),
            "pareto": self._pareto(main),
            "groups": self._groups(tops),
            "findings": list(self.findings),
            "constants": dict(self.constants or {}),
        }

    def budget(self) -> Document:
        """Asked and realised, as fractions of the original and as absolute counts."""
        problem, original = self.problem, self.problem.original.costs
        metric, limit = problem.budget.metric, problem.projector.limit
        after = problem.all_costs(self.best.candidate.counts)
        realised = {
            name: {"base": base, "pruned": int(after[name]), "fraction": after[name] / base}
            for name, base in original.items()
        }
        if problem.calibration is not None:
            limit *= problem.calibration.start.fraction
            latency = after["latency"]
            realised[metric] = {"base": 1.0, "pruned": latency, "fraction": latency}
        return {
            "metric": metric,
            "asked": problem.budget.asked,
            "limit": limit,
            "realised": realised,
        }

    def _round(self) -> Document:
        this = self.problem.round
        return {"round": {"number": this.number, "of": this.count}} if this.count > 1 else {}

    def _row(self, trial: Trial, trials: int = 1) -> Document:
        """One line of the strategies table."""
        outcome, settings = trial.outcome, self.problem.settings
        longer = settings.evaluation.final_steps if trial.phase == FINALISTS else 1
        return {
            "strategy": trial.phase,
            "trials": trials,
            "score": outcome.score,
            "accuracy": outcome.accuracy,
            "images": outcome.images,
            "reconstructed": settings.reconstruct,
            "distill_steps": settings.distill_steps * longer,
            **self.problem.all_costs(trial.candidate.counts),
        }

    def _tops(self) -> dict[str, Trial]:
        """Best complete trial of every strategy that has one."""
        leaders = {name: ranked(found) for name, found in self.phases.items() if name != FINALISTS}
        return {name: found[0] for name, found in leaders.items() if found}

    def _sizes(self) -> list[int]:
        """Units of the space's groups in the original."""
        space, original = self.problem.space, self.problem.original.sizes
        pairs = zip(space.ids, space.sizes.tolist(), strict=True)
        return [original.get(name, size) for name, size in pairs]

    def _groups(self, tops: Mapping[str, Trial]) -> list[Document]:
        """Units per group: in the original, after, and in the best of every strategy; groups that
        went with their branches in an earlier round come last.
        """
        names, best = self.problem.space.ids, self.best.candidate.counts
        earlier = [
            {"id": name, "size": size, "kept": 0, "others": dict.fromkeys(tops, 0)}
            for name, size in self._gone_before()
        ]
        now = [
            {
                "id": name,
                "size": size,
                "kept": int(best[place]),
                "others": {key: int(top.candidate.counts[place]) for key, top in tops.items()},
            }
            for place, (name, size) in enumerate(zip(names, self._sizes(), strict=True))
        ]
        return [*now, *earlier]

    def _gone_before(self) -> list[tuple[str, int]]:
        """Groups of the original, with their units, whose branches earlier rounds have dropped."""
        zeros = stand_ins_of(self.problem.network.model)
        return [
            (name, size)
            for name, size in self.problem.original.sizes.items()
            if any(f"{name}.".startswith(f"{path}.") for path in zeros)
        ]

    def _pareto(self, trials: Sequence[Trial]) -> list[Document]:
        """Candidates that no other beats in both cost and score, cheapest first.

        Cost is latency if that is the budget, else MACs.
        """
        metric = "macs" if self.problem.calibration is None else "latency"
        points = [
            (self.problem.all_costs(trial.candidate.counts)[metric], -trial.outcome.score, trial)
            for trial in ranked(trials)
        ]
        front: list[Document] = []
        lowest = float("inf")
        for cost, loss, trial in sorted(points, key=lambda point: point[:2]):
            if loss < lowest:
                lowest, outcome = loss, trial.outcome
                front.append({metric: cost, "score": outcome.score, "accuracy": outcome.accuracy})
        return front


def curve(trials: Sequence[Trial]) -> list[Document]:
    """Score of every trial and the best complete one so far."""
    best: float | None = None
    points = []
    for trial in trials:
        outcome = trial.outcome
        if trial.complete:
            best = outcome.score if best is None else max(best, outcome.score)
        points.append(
            {"trial": trial.index, "score": outcome.score, "best": best, "stopped": outcome.stopped}
        )
    return points


def table_part(problem: SearchProblem, table: LossTable, best: Trial) -> Document:
    """The loss table in `search.json`: nats of divergence, measured on `images` images."""
    groups = zip(problem.space.ids, table.measured, strict=True)
    return {
        "images": problem.settings.table.images,
        "predicted": table(best.candidate.counts),
        "groups": [{"id": name, "measured": sorted(known.items())} for name, known in groups],
    }


def latency_part(
    problem: SearchProblem, calibration: Calibration, timer: CandidateTimer, best: Trial
) -> Document:
    """The latency part of `search.json`; fractions are of the original's latency in fp32."""
    settings, table, start = problem.settings, calibration.table, calibration.start.fraction
    timed = [(table.of(np.array(key)), one.fraction) for key, one in timer.known.items()]
    fresh = timed[settings.latency_samples :]
    errors = [abs(predicted / measured - 1) for predicted, measured in fresh]
    measured = timer.known.get(best.key)
    moved = problem.round.count > 1 or calibration.precision != "fp32"
    several: Document = {"round_starts_at": start} if moved else {}
    if timer.unsliced:
        several["quantized_each_because"] = timer.unsliced
    return {
        "mode": settings.latency,
        "precision": calibration.precision,
        "provider": settings.latency_provider,
        "batch": settings.latency_batch,
        "threads": settings.latency_threads,
        "base_ms": calibration.uncut_seconds * 1e3 / start,
        "budget": problem.budget.share * start,
        "predicted": table.of(best.candidate.counts) * start,
        "measured": measured.fraction * start if measured else None,
        "block": table.block,
        "samples": settings.latency_samples,
        "median_error_cross_validated": table.error,
        "median_error_fresh": float(np.median(errors)) if errors else None,
        "fresh": [{"predicted": p * start, "measured": m * start} for p, m in fresh],
        **several,
    }
