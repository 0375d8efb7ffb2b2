"""Strategies compared on the network, graph and images of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.channels.counts import Counts
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.config.schema import Config
from pipeline.data.images import balanced_indices
from pipeline.data.load import load_splits
from pipeline.data.splits import Splits
from pipeline.errors import Hint, UsageError
from pipeline.models.files import load_model
from pipeline.run.artifacts import document
from pipeline.run.inside import WORK, open_run
from pipeline.run.store import sha256_file
from pipeline.training.machine import all_cores, device_for, exact_float32
from stages.search.compare import Fitter, Recover, compare_strategies
from stages.search.evaluation.trial import Trial
from stages.search.latency.alignment import settle_alignment
from stages.search.latency.calibration import Calibrator, StartTimer
from stages.search.latency.measured_budget import MeasuredBudget
from stages.search.latency.precision import Int8Timing, SettledPrecision, settle_precision
from stages.search.latency.timer import CandidateTimer, TimingSetting
from stages.search.moved_limit import as_measured
from stages.search.problem import Network, SearchProblem
from stages.search.results.comparison import StrategyComparison, StrategyRun
from stages.search.results.finished_runs import FinishedRuns
from stages.search.results.journal import Journal
from stages.search.tables.loss_table import LossTable
from stages.search.tables.resize import resized

Distill = Callable[[nn.Module, nn.Module, Splits, int], float]
"""(cut network, original, splits, seed) -> accuracy on the search split after recovery."""

VERSION = 8
"""Of what finished runs hold; older ones are not continued."""


@dataclass(frozen=True)
class ComparisonRequest:
    """What is asked for.

    Attributes:
        strategies: names; the first is compared with each other one.
        seeds: repetitions, with seeds 0, 1, …
        recover_seeds: of the first so many the best candidates are recovered.
        trials: evaluations each; `search.trials` when absent.
        distill_images: recover on a class-balanced draw of so many train images; absent: on all.
    """

    strategies: Sequence[str]
    seeds: int
    recover_seeds: int = 0
    trials: int | None = None
    distill_images: int | None = None


@dataclass(frozen=True)
class Compared:
    """What came of it.

    Attributes:
        train_images: how many the recoveries saw.
    """

    comparison: StrategyComparison
    problem: SearchProblem
    train_images: int


class RunComparison:
    """Compares strategies in a run folder that holds `trace/` and `rotate/`.

    Args:
        distill: recovers a cut network.
        note: told one sentence after every run.
    """

    def __init__(
        self, folder: Path, config: Config, *, distill: Distill, note: Callable[[str], None]
    ) -> None:
        self.folder, self.config, self.distill, self.note = folder, config, distill, note
        kind = document("graph")
        graph = ChannelGraph.from_dict(kind.read(folder / kind.maker / kind.file))
        self.device = device_for(config.device)
        self.network = Network(load_model(folder / "rotate").to(self.device), graph)

    def run(self, request: ComparisonRequest) -> Compared:
        """Search and recover; what a comparison asked for before has found is not repeated.

        Raises:
            UsageError: the budget cannot be met, or asks for nothing.
            Refused: nothing can be pruned.
        """
        again = range(min(request.seeds, request.recover_seeds))
        with all_cores(), exact_float32():
            splits = load_splits(self.config.data, seed=self.config.seed).to(self.device)
            images = _fewer(splits, request.distill_images, self.config.seed)
            precision = self._precision(splits)
            subject = self._subject(request, precision)
            with open_run(self.folder, WORK, make=True) as work:
                finished = FinishedRuns(work.path, subject)
            journal = Journal.open(finished.table, subject)
            with self._calibrator(splits, finished, precision) as calibrator:
                problem = self._problem(splits, calibrator, precision)
                found = compare_strategies(
                    problem,
                    request.strategies,
                    range(request.seeds),
                    trials=request.trials,
                    recover=self._recovery(problem, images) if again else None,
                    recover_seeds=again,
                    fit=_fitter(problem, calibrator.timer),
                    correct=partial(as_measured, problem, calibrator.timer),
                    on_run=partial(self._on_run, finished),
                    known=finished.runs,
                    recorded=journal.trials,
                    on_entry=partial(_journalled, problem, journal),
                )
        return Compared(found, problem, len(images.train))

    def _precision(self, splits: Splits) -> SettledPrecision:
        example, _ = splits.search.take(2, seed=self.config.seed)
        timing = Int8Timing(self.network.model, example, TimingSetting.of(self.config.search))
        mode = self.config.quantize.mode
        return settle_precision(self.config.search, mode, timing, note=self.note)

    def _calibrator(
        self, splits: Splits, finished: FinishedRuns, precision: SettledPrecision
    ) -> Calibrator:
        model, graph = self.network.model, self.network.graph
        start = StartTimer(model, graph, finished.start, finished.keep_start)
        return Calibrator(
            model,
            graph,
            splits.search,
            self.config.search,
            self.config.seed,
            known=finished.measured,
            on_measure=finished.add_measurement,
            start=start if precision.scheme else None,
            scheme=precision.scheme,
        )

    def _problem(
        self, splits: Splits, calibrator: Calibrator, precision: SettledPrecision
    ) -> SearchProblem:
        settings, network = self.config.search, self.network
        if settings.budget.accuracy_drop is not None:
            raise UsageError(
                "strategies are compared at equal cost, search.budget.accuracy_drop is none",
                hint=Hint.set("search.budget.macs", 0.5),
            )
        align = settle_alignment(
            settings, network.graph, precision=precision.name, note=self.note
        ).align
        return SearchProblem.build(
            network, splits, settings, self.config.seed, align=align, calibrate=calibrator
        )

    def _recovery(self, problem: SearchProblem, splits: Splits) -> Recover:
        model, graph = problem.network.model, problem.network.graph

        def recovered(counts: Counts, seed: int) -> float:
            plan = ChannelPlan.of(graph, problem.ranking.keep(counts))
            student = cut(model, graph, plan)
            return self.distill(student, model, splits, seed)

        return recovered

    def _on_run(self, finished: FinishedRuns, done: int, total: int, run: StrategyRun) -> None:
        finished.add(run)
        self.note(f"{done}/{total} {sentence(run)}")

    def _subject(self, request: ComparisonRequest, precision: SettledPrecision) -> dict[str, Any]:
        """What finished runs may be reused for: all they depend on but strategy and seed."""
        sections = self.config.model_dump(
            mode="json", include={"seed", "model", "data", "search", "distill", "trace", "rotate"}
        )
        for name in ("strategy", "trials", "workers"):
            sections["search"].pop(name)
        return {
            "version": VERSION,
            "precision": precision.label,
            "settings": sections,
            "weights": sha256_file(self.folder / "rotate" / "model.safetensors"),
            "trials": request.trials or self.config.search.trials,
            "images": request.distill_images,
        }


def _journalled(problem: SearchProblem, journal: Journal, entry: Trial, replayed: bool) -> None:
    if not replayed:
        journal.append(entry, problem.all_costs(entry.candidate.counts))


def _fitter(problem: SearchProblem, timer: CandidateTimer | None) -> Fitter | None:
    """What brings candidates within a latency budget; None where measuring decides nothing.

    Strategies that know no loss table have none here either: all groups change alike.
    """
    if timer is None or problem.settings.latency == "predicted":
        return None
    budget = MeasuredBudget(timer, problem.projector, problem.budget.share)

    def fitted(counts: Counts, table: LossTable | None) -> tuple[Counts, float | None]:
        own = budget if table is None else replace(budget, resize=partial(resized, table))
        nearest = own.nearest(counts)
        found = counts if nearest is None else nearest
        return found, timer.measure(found).fraction

    return fitted


def sentence(run: StrategyRun) -> str:
    """What a run found, for people."""
    cost = f"cost {run.cost:.4g}"
    if run.measured is not None:
        cost = f"latency {run.measured:.3f} of the original"
    text = f"{run.strategy} seed {run.seed}: score {run.score:.4f}, {cost}, {run.seconds:.1f} s"
    if run.recovered is None:
        return text
    return f"{text}; recovered {run.recovered:.2%} in {run.recovery_seconds or 0:.1f} s"


def _fewer(splits: Splits, images: int | None, seed: int) -> Splits:
    """With a class-balanced draw of so many train images."""
    if not images or images >= len(splits.train):
        return splits
    some = balanced_indices(splits.train.labels, images, seed)
    return replace(splits, train=splits.train.subset(some))
