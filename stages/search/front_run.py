"""`rlp search front`: the front of the network of a run, continued when the command is typed
again.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.channels.graph import ChannelGraph
from pipeline.config.schema import Config
from pipeline.data.load import load_splits
from pipeline.data.splits import Splits
from pipeline.models.files import load_model
from pipeline.run.artifacts import TRIALS, document
from pipeline.run.inside import WORK, open_run
from pipeline.run.stage import Reporter, SilentReporter
from pipeline.run.store import sha256_file
from pipeline.training.machine import all_cores, device_for, exact_float32
from stages.search.engine import Search
from stages.search.evaluation.executor import InProcess
from stages.search.front.document import front_document
from stages.search.front.fronts import BUDGETS, FrontMaker
from stages.search.front.points import Known
from stages.search.latency.alignment import settle_alignment
from stages.search.latency.calibration import Calibrator, StartTimer
from stages.search.latency.precision import Int8Timing, SettledPrecision, settle_precision
from stages.search.latency.timer import TimingSetting
from stages.search.problem import Network, SearchProblem
from stages.search.results.journal import Journal
from stages.search.results.recorder import FrontRecorder, TableRecorder
from stages.search.results.scratch import Scratch
from stages.search.tables.loss_table import LossTable
from stages.search.tabulate import Tabulation

# of the section search, what no point of the front depends on
_BESIDE = (
    "budget", "strategy", "trials", "workers", "finalists", "rl", "evolution", "halving", "score",
    "evaluation", "images", "distill_steps", "align", "precision",
)  # fmt: skip


class RunFront:
    """Makes the front in a run folder that holds `trace/` and `rotate/`.

    Its table and measured plans are in a journal of their own, so that an interrupted front goes on
    where it was. The budget's value does not matter; its metric does.
    """

    def __init__(self, folder: Path, config: Config, reporter: Reporter | None = None) -> None:
        self.folder, self.config = folder, config
        self.reporter = reporter or SilentReporter()
        kind = document("graph")
        graph = ChannelGraph.from_dict(kind.read(folder / kind.maker / kind.file))
        model = load_model(folder / "rotate")
        self.device = device_for(config.device)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = Network(model, graph)

    def run(self, measured: int) -> dict[str, Any]:
        """Body of `front.json`; it is also written, into the run folder.

        Args:
            measured: plans that are reconstructed and scored, beside the whole network.
        Raises:
            Refused: nothing can be pruned.
        """
        settings = self.config.search
        with all_cores(), exact_float32():
            splits = load_splits(self.config.data, seed=self.config.seed).to(self.device)
            precision = self._precision(splits)
            align = settle_alignment(
                settings, self.network.graph, precision=precision.name, note=self.reporter.note
            ).align
            journal = self._journal(align, precision)
            with self._calibrator(splits, journal, precision) as calibrator:
                problem = SearchProblem.build(
                    self.network, splits, settings, self.config.seed, align=align,
                    calibrate=calibrator, unlimited=True,
                )  # fmt: skip
            table, known = self._table(problem, journal)
            recorder = FrontRecorder(problem, journal, self.reporter.progress, 0)
            maker = FrontMaker.reconstructing(
                problem, table, splits, self.config.reconstruct, recorded=journal.trials,
                on_trial=recorder, expect=recorder.expect,
            )  # fmt: skip
            points = maker.front(maker.points(BUDGETS, on_point=self._on_point), measured, known)
        body = front_document(problem, points, maker.trials[0].outcome.accuracy)
        kind = document("front")
        kind.write(self.folder / kind.file, body)
        return body

    def _on_point(self, done: int, total: int) -> None:
        self.reporter.progress(done, total, what="budgets solved")

    def _table(self, problem: SearchProblem, journal: Journal) -> tuple[LossTable, list[Known]]:
        """The table, and the accuracy of every entry of it."""
        recorder = TableRecorder(problem, journal, self.reporter.progress, 0)
        search = Search(
            InProcess(problem.table_evaluator()), recorded=journal.trials, on_trial=recorder
        )
        widths = problem.settings.table.widths
        tabulation = Tabulation(problem.space, widths, search, recorder.expect)
        table = tabulation()
        trials = tabulation.trials
        return table, [(table(one.candidate.counts), one.outcome.accuracy) for one in trials]

    def _precision(self, splits: Splits) -> SettledPrecision:
        example, _ = splits.search.take(2, seed=self.config.seed)
        timing = Int8Timing(self.network.model, example, TimingSetting.of(self.config.search))
        mode = self.config.quantize.mode
        return settle_precision(self.config.search, mode, timing, note=self.reporter.note)

    def _calibrator(
        self, splits: Splits, journal: Journal, precision: SettledPrecision
    ) -> Calibrator:
        return Calibrator(
            self.network.model,
            self.network.graph,
            splits.search,
            self.config.search,
            self.config.seed,
            known=journal.measured,
            on_measure=journal.append_measurement,
            progress=lambda done, total: self.reporter.progress(
                done, total, what="candidates timed for the latency table"
            ),
            start=self._start(journal) if precision.scheme else None,
            scheme=precision.scheme,
        )

    def _start(self, journal: Journal) -> StartTimer:
        """Times the network in INT8 against itself; a front that goes on keeps it."""
        scratch, name = Scratch(journal.path.parent), f"{journal.path.stem}-start.json"
        keep = partial(scratch.write, name)
        return StartTimer(self.network.model, self.network.graph, scratch.read(name), keep)

    def _journal(self, align: int, precision: SettledPrecision) -> Journal:
        """Of what the points depend on; another network or other settings begin another one."""
        sections = self.config.model_dump(mode="json", include={"seed", "data", "reconstruct"})
        settings = self.config.search.model_dump(mode="json", exclude=set(_BESIDE))
        kind = document("graph")
        files = [self.folder / "rotate" / "model.safetensors", self.folder / kind.maker / kind.file]
        of = {
            **sections,
            "search": settings,
            "align": align,
            "precision": precision.label,
            "metric": self.config.search.budget.metric,
            "files": [sha256_file(path) for path in files],
        }
        digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
        with open_run(self.folder, WORK, make=True) as work:
            journal = Journal.open(
                work.path / f"front-{digest[:12]}.jsonl", TRIALS.stamp({"of": of})
            )
        if journal.trials:
            self.reporter.note(f"{len(journal.trials)} measurements recovered from the journal")
        return journal
