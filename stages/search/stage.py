"""The search stage: base model, graph and images in; plan, trials and the comparison with the controls out."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack
from typing import Any

import torch

from pipeline.data import load_splits
from pipeline.models import load_model
from pipeline.stage import Stage, StageContext
from pipeline.store import sha256_file, write_bytes, write_json, write_tensors
from pipeline.training.machine import all_cores
from stages.search.engine import Search, Trial, ranked
from stages.search.executor import Executor, InProcess, Pool
from stages.search.journal import Journal
from stages.search.setup import Setup, prepare
from stages.search.strategies import Proposal, Strategy
from stages.search.summary import plan_of, summary
from stages.trace import ChannelGraph

CONTROLS = ("uniform", "global-taylor")


class SearchStage(Stage):
    """Interrupted and typed again, it continues at the trial it was at and ends with the same plan."""

    name = "search"
    title = "distribute the budget over the channel groups"
    sections = ("search",)
    reads = ("base_model", "graph", "data")
    uses_data = True

    def run(self, ctx: StageContext) -> dict[str, Any]:
        config = ctx.config
        model = load_model(ctx.input("base_model")).to(memory_format=torch.channels_last)
        graph = ChannelGraph.from_json(ctx.input("graph").read_text())
        with all_cores():
            setup = prepare(model, graph, load_splits(config.data, seed=ctx.seed), config.search, ctx.seed)
            return _Session(ctx, setup).run()


class _Session:
    """One run of the stage: journal, progress and the three phases (controls, strategy, finalists)."""

    def __init__(self, ctx: StageContext, setup: Setup) -> None:
        self.ctx, self.setup = ctx, setup
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
            executor: Executor = InProcess(self.setup.evaluator)
            if settings.workers > 1:
                executor = stack.enter_context(Pool(self.setup.evaluator, settings.workers))
            search = self._search(executor)
            phases: dict[str, list[Trial]] = {}
            for name in CONTROLS:
                phases[name] = search.run(name, self.setup.strategy(name, trials=1), 1)
            strategy = self.setup.strategy(settings.strategy, trials=settings.trials)
            if settings.strategy not in CONTROLS:
                phases[settings.strategy] = search.run(settings.strategy, strategy, settings.trials)
        phases["finalists"] = self._finalists(ranked(phases[settings.strategy]))
        best = (ranked(phases["finalists"]) or ranked(phases[settings.strategy]))[0]
        if search.mismatched:
            self.ctx.warn(f"{search.mismatched} recorded trials were not those asked for again, and were repeated")
        return self._write(search, strategy, phases, best)

    def _search(self, executor: Executor) -> Search:
        return Search(executor, self.journal.trials, self._on_trial, self._check, self.settings.halving)

    def _finalists(self, leaders: list[Trial]) -> list[Trial]:
        """The leaders on more images, so that the plan is not the luckiest of many on few."""
        evaluator = self.setup.final_evaluator()
        if evaluator is None or len(leaders) < 2 or self.settings.finalists < 2:
            return []
        proposals = [
            Proposal(trial.proposal.counts, trial.proposal.action, trial.proposal.origin)
            for trial in leaders[: self.settings.finalists]
        ]
        return self._search(InProcess(evaluator)).score("finalists", 0, proposals)

    def _check(self) -> None:
        if self.ctx.stopping():
            raise self.ctx.interrupted()

    def _on_trial(self, trial: Trial, replayed: bool) -> None:
        if not replayed:
            self.journal.append(trial, self.setup.cost(trial.proposal.counts))
            self.measured += 1
        self.hits += trial.cached
        if trial.phase != self.settings.strategy:
            return
        self.done += 1
        if trial.proposal.eligible and not trial.outcome.stopped:
            self.best = max(trial.outcome.score, trial.outcome.score if self.best is None else self.best)
        each = (time.monotonic() - self.begun) / max(1, self.measured)
        total = 1 if self.settings.strategy in CONTROLS else self.settings.trials
        fields = {"best": self.best, "accuracy": trial.outcome.accuracy, "cache_hits": self.hits}
        self.ctx.progress(self.done, total, **fields, eta_s=round(each * (total - self.done), 1))

    def _write(self, search: Search, strategy: Strategy, phases: dict[str, list[Trial]], best: Trial) -> dict[str, Any]:
        ctx, setup = self.ctx, self.setup
        findings = strategy.findings()
        for finding in findings:
            ctx.warn(finding)
        document = summary(setup, search, phases, best, findings)
        state = strategy.state()
        document["policy"] = {name: [round(float(v), 6) for v in values] for name, values in state.items()}
        if state:
            write_tensors(ctx.work / "policy.safetensors", {n: torch.from_numpy(v) for n, v in state.items()})
        write_bytes(ctx.out / "plan.json", plan_of(setup, best).to_json().encode())
        write_bytes(ctx.out / "trials.jsonl", self.journal.path.read_bytes())
        write_json(ctx.out / "search.json", document)
        realised = document["budget"]["realised"]
        controls = {row["strategy"]: row["score"] for row in document["strategies"]}
        return {
            "strategy": self.settings.strategy,
            "trials": document["trials"],
            "score": best.outcome.score,
            "search_accuracy": best.outcome.accuracy,
            "macs_fraction": realised["macs"]["fraction"],
            "params_fraction": realised["params"]["fraction"],
            **{f"score_{name}": controls[name] for name in CONTROLS if name in controls},
        }


def _header(ctx: StageContext, setup: Setup) -> dict[str, Any]:
    """What a journal must have been written for to be continued."""
    settings = setup.settings.model_dump(mode="json")
    settings.pop("workers")
    folder = ctx.input("base_model")
    parts = [sha256_file(folder / "model.safetensors"), sha256_file(ctx.input("graph"))]
    parts.append(json.dumps([settings, ctx.config.data.model_dump(mode="json"), ctx.seed], sort_keys=True))
    return {
        "journal": 1,
        "groups": list(setup.space.ids),
        "seed": ctx.seed,
        "settings": settings,
        "of": hashlib.sha256("\n".join(parts).encode()).hexdigest(),
    }


STAGE = SearchStage
