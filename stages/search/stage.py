"""The search stage: base model, graph and images in; plan, trials and the comparison with the
controls out.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.data import load_splits
from pipeline.errors import Refused
from pipeline.models import load_model
from pipeline.run.stage import StageContext
from pipeline.run.store import read_json, sha256_file, write_bytes, write_json, write_tensors
from pipeline.training.machine import all_cores
from stages.benchmark import LatencyWorker
from stages.search.align import settle_alignment
from stages.search.budget import Projector
from stages.search.calibrate import Calibration, calibrate, confirmed, report
from stages.search.engine import Search, finalists, ranked
from stages.search.executor import Executor, InProcess, Pool
from stages.search.journal import Journal
from stages.search.origin import Origin, begin_round, in_time, judge
from stages.search.setup import Setup
from stages.search.stopwatch import Stopwatch
from stages.search.strategies import Proposal, Strategy
from stages.search.summary import costs, plan_of, summary
from stages.search.trial import Trial
from stages.trace import ChannelGraph

CONTROLS = ("uniform", "global-taylor")


class SearchStage:
    """Interrupted and typed again, it continues at the trial it was at and ends with the same
    plan.
    """

    def run(self, ctx: StageContext) -> dict[str, Any]:
        config = ctx.config
        model, graph = _network(ctx.input)
        first, first_graph = (model, graph) if ctx.round.first else _network(ctx.original)
        settings, alignment = settle_alignment(
            config.search,
            first_graph,
            work=ctx.work,
            note=ctx.note,
            progress=partial(_on_width, ctx),
        )
        with all_cores():
            splits = load_splits(config.data, seed=ctx.seed)
            setup, origin = begin_round(
                model,
                graph,
                splits,
                settings,
                ctx.seed,
                original=first_graph,
                number=ctx.round.number,
                rounds=ctx.round.count,
            )
            return _Session(ctx, setup, origin, first, first_graph, alignment).run()


def _network(read: Callable[[str], Path]) -> tuple[nn.Module, ChannelGraph]:
    model = load_model(read("base_model")).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, ChannelGraph.from_json(read("graph").read_text())


def _on_width(ctx: StageContext, done: int, total: int) -> None:
    if ctx.stopping():
        raise ctx.interrupted()
    ctx.progress(done, total, what="convolutions timed for the alignment")


class _Session:
    """One run of the stage: journal, progress and the three phases (controls, strategy,
    finalists).
    """

    def __init__(
        self,
        ctx: StageContext,
        setup: Setup,
        origin: Origin,
        first: nn.Module,
        first_graph: ChannelGraph,
        alignment: dict[str, Any] | None = None,
    ) -> None:
        self.ctx, self.setup, self.alignment = ctx, setup, alignment
        self.origin, self.first, self.first_graph = origin, first, first_graph
        self.calibration: Calibration | None = None
        self.stopwatch: Stopwatch | None = None
        self.settings = setup.settings
        self.journal = Journal.open(ctx.work / "trials.jsonl", _header(ctx, setup))
        self.begun, self.done, self.hits, self.measured = time.monotonic(), 0, 0, 0
        self.best: float | None = None
        if self.journal.foreign:
            ctx.note("trials of a search with other settings or another network were set aside")
        if self.journal.torn:
            ctx.warn(f"{self.journal.torn} incomplete line dropped from the journal of trials")
        if self.journal.trials:
            ctx.note(f"{len(self.journal.trials)} trials recovered from the journal")

    def run(self) -> dict[str, Any]:
        settings = self.settings
        with ExitStack() as stack:
            if settings.budget.latency or settings.budget.latency_ms:
                self.stopwatch = stack.enter_context(self._stopwatch())
                self._calibrate(self.stopwatch)
            if self.origin.number > 1:
                judge(self.setup.evaluator, self.first)
            executor: Executor = InProcess(self.setup.evaluator)
            if settings.workers > 1:
                executor = stack.enter_context(Pool(self.setup.evaluator, settings.workers))
            search = self._search(executor)
            self.begun = time.monotonic()
            phases: dict[str, list[Trial]] = {}
            for name in CONTROLS:
                phases[name] = search.run(name, self.setup.strategy(name, trials=1), 1)
            strategy = self.setup.strategy(settings.strategy, trials=settings.trials)
            if settings.strategy not in CONTROLS:
                phases[settings.strategy] = search.run(settings.strategy, strategy, settings.trials)
            phases["finalists"] = self._finalists(phases[settings.strategy])
        best = (ranked(phases["finalists"]) or ranked(phases[settings.strategy]))[0]
        if search.mismatched:
            self.ctx.warn(
                f"{search.mismatched} recorded trials were not those asked for again, and were repeated"
            )
        return self._write(search, strategy, phases, best)

    def _calibrate(self, stopwatch: Stopwatch) -> None:
        """Latency budgets: this round's share of it, and the table to project with."""
        if self.origin.rounds > 1:
            whole = replace(self.origin, number=self.origin.rounds)
            found = self._against_first(stopwatch)
            last, _ = in_time(self.setup, whole, 1.0, found["base_seconds"])
            self.setup, self.origin = in_time(self.setup, self.origin, **found)
        self.calibration = calibrate(self.setup, stopwatch, self._on_timed)
        self.setup = self.calibration.setup
        if (
            self.origin.rounds > 1 and self.origin.number == 1
        ):  # better now than after the first of the rounds
            Projector.fraction(self.setup.space, self.calibration.table, last.share)

    def _against_first(self, stopwatch: Stopwatch) -> dict[str, float]:
        """Latency of the network this round starts from against the original's; a search that
        goes on keeps it.
        """
        path = self.ctx.work / "origin.json"
        if path.exists():
            kept = read_json(path)
            return {name: float(kept[name]) for name in ("latency", "base_seconds")}
        first = replace(
            stopwatch,
            model=self.first,
            graph=self.first_graph,
            known={},
            _slicer=None,
            _worker=None,
        )
        settings = {
            "provider": stopwatch.provider,
            "batch": stopwatch.batch,
            "threads": stopwatch.threads,
        }
        with LatencyWorker(first.sliced({}), **settings) as worker:  # type: ignore[arg-type]
            found = worker.relative(stopwatch.sliced({}), min_time=5 * stopwatch.min_seconds)
        latency = found.fraction if self.origin.number > 1 else 1.0
        record = {"latency": latency, "base_seconds": found.base_seconds}
        write_json(path, record)
        return record

    def _search(self, executor: Executor) -> Search:
        hooks = self._on_trial, self._check, self._on_batch
        return Search(
            executor,
            self.journal.trials,
            *hooks,
            halving=self.settings.halving,
            removed=self.setup.removed,
        )

    def _on_batch(self, strategy: Strategy, trials: Sequence[Trial]) -> None:
        """What the policy has learned, on disk after every batch; the journal alone is what
        resuming needs.
        """
        if state := strategy.state():
            tensors = {name: torch.from_numpy(values) for name, values in state.items()}
            write_tensors(
                self.ctx.work / "policy.safetensors", tensors, {"trials": str(len(trials))}
            )

    def _finalists(self, trials: list[Trial]) -> list[Trial]:
        """The leaders on more images, so that the plan is not the luckiest of many on few;
        timed, if that counts.
        """
        timed = self.calibration is not None and self.settings.latency != "predicted"
        evaluator = self.setup.final_evaluator()
        if evaluator is not None and self.origin.number > 1:
            judge(evaluator, self.first)
        leaders = finalists(trials, self.settings.finalists)
        if not timed and (evaluator is None or len(leaders) < 2):
            return []
        proposals = [replace(trial.proposal, eligible=True) for trial in leaders]
        if timed:
            proposals = self._in_time(trials)
        return self._search(InProcess(evaluator or self.setup.evaluator)).score(
            "finalists", 0, proposals
        )

    def _in_time(self, trials: list[Trial]) -> list[Proposal]:
        """Finalists whose measured latency keeps the budget."""
        assert self.calibration is not None
        assert self.stopwatch is not None
        if self.settings.latency == "measured":
            key = {
                trial.key: self.stopwatch.measure(trial.proposal.counts).fraction
                for trial in ranked(trials)
            }
            trials = [t for t in ranked(trials) if key[t.key] <= self.calibration.share] or trials
        leaders = finalists(trials, self.settings.finalists)
        found = confirmed(self.calibration, self.stopwatch, leaders)
        if not found:
            raise Refused(
                f"none of the {len(leaders)} best candidates measured within the latency budget "
                f"{self.calibration.share:g}",
                hint="a larger search.budget.latency, more search.finalists, or a quieter machine",
            )
        return found

    def _stopwatch(self) -> Stopwatch:
        evaluator, settings = self.setup.evaluator, self.settings
        return Stopwatch(
            evaluator.model,
            evaluator.graph,
            evaluator.ranking,
            evaluator.x[:2],
            settings.latency_provider,
            settings.latency_batch,
            settings.latency_threads,
            known=dict(self.journal.measured),
            on_measure=self.journal.append_measurement,
        )

    def _on_timed(self, done: int, total: int) -> None:
        self._check()
        self.ctx.progress(done, total, what="candidates timed for the latency table")

    def _check(self) -> None:
        if self.ctx.stopping():
            raise self.ctx.interrupted()

    def _on_trial(self, trial: Trial, replayed: bool) -> None:
        if not replayed:
            self.journal.append(trial, self._costs(trial))
            self.measured += 1
        self.hits += trial.cached
        if trial.phase != self.settings.strategy:
            return
        self.done += 1
        if trial.proposal.eligible and not trial.outcome.stopped:
            self.best = max(
                trial.outcome.score, trial.outcome.score if self.best is None else self.best
            )
        each = (time.monotonic() - self.begun) / max(1, self.measured)
        total = 1 if self.settings.strategy in CONTROLS else self.settings.trials
        fields = {"best": self.best, "accuracy": trial.outcome.accuracy, "budget": self._met(trial)}
        fields["cache_hits"] = self.hits
        self.ctx.progress(self.done, total, **fields, eta_s=round(each * (total - self.done), 1))

    def _met(self, trial: Trial) -> str:
        """What the candidate costs and may cost, as fractions of the original."""
        metric, counts = self.setup.metric, trial.proposal.counts
        spent = costs(self.setup, self.origin, counts)[metric] / self.origin.costs.get(metric, 1)
        asked = self.setup.share if self.origin.rounds == 1 else self.origin.asked
        return f"{metric} {spent:.1%} {'of' if self.setup.projector.fits(counts) else 'above'} {asked:.1%}"

    def _costs(self, trial: Trial) -> dict[str, float]:
        return costs(self.setup, self.origin, trial.proposal.counts)

    def _write(
        self, search: Search, strategy: Strategy, phases: dict[str, list[Trial]], best: Trial
    ) -> dict[str, Any]:
        ctx, setup = self.ctx, self.setup
        findings = strategy.findings()
        for finding in findings:
            ctx.warn(finding)
        document = summary(setup, self.origin, search, phases, best, findings)
        if self.calibration is not None and self.stopwatch is not None:
            document["latency"] = _from_first(
                report(self.calibration, self.stopwatch, best), self.origin
            )
        if self.alignment is not None:
            document["alignment"] = self.alignment
        state = strategy.state()
        document["policy"] = {
            name: [round(float(v), 6) for v in values] for name, values in state.items()
        }
        write_bytes(ctx.out / "plan.json", plan_of(setup, self.origin, best).to_json().encode())
        write_bytes(ctx.out / "trials.jsonl", self.journal.path.read_bytes())
        write_json(ctx.out / "search.json", document)
        realised = document["budget"]["realised"]
        controls = {row["strategy"]: row["score"] for row in document["strategies"]}
        return {
            "strategy": self.settings.strategy,
            "align": self.settings.align,
            "trials": document["trials"],
            "score": best.outcome.score,
            "search_accuracy": best.outcome.accuracy,
            "macs_fraction": realised["macs"]["fraction"],
            "params_fraction": realised["params"]["fraction"],
            **(
                {"latency_fraction": document["latency"]["measured"]}
                if "latency" in document
                else {}
            ),
            **{f"score_{name}": controls[name] for name in CONTROLS if name in controls},
        }


def _from_first(latency: dict[str, Any], origin: Origin) -> dict[str, Any]:
    """The latency part of `search.json`, as fractions of the original's latency instead of this
    round's start.
    """
    if origin.rounds == 1:
        return latency
    by = origin.latency
    fresh = [{key: value * by for key, value in pair.items()} for pair in latency["fresh"]]
    scaled = {
        key: latency[key] * by
        for key in ("budget", "predicted", "measured")
        if latency[key] is not None
    }
    return {
        **latency,
        **scaled,
        "base_ms": latency["base_ms"] / by,
        "fresh": fresh,
        "round_starts_at": by,
    }


def _header(ctx: StageContext, setup: Setup) -> dict[str, Any]:
    """What a journal must have been written for to be continued."""
    settings = setup.settings.model_dump(mode="json")
    settings.pop("workers")
    folder = ctx.input("base_model")
    parts = [sha256_file(folder / "model.safetensors"), sha256_file(ctx.input("graph"))]
    parts.append(
        json.dumps([settings, ctx.config.data.model_dump(mode="json"), ctx.seed], sort_keys=True)
    )
    return {
        "journal": 3,
        "groups": list(setup.space.ids),
        "seed": ctx.seed,
        "settings": settings,
        "of": hashlib.sha256("\n".join(parts).encode()).hexdigest(),
    }


STAGE = SearchStage
