"""One search from its networks to its plan: calibration, controls, strategy, finalists."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pipeline.channels.plan import ChannelPlan
from pipeline.data.splits import Splits
from pipeline.errors import Command, Hint, Key, Refused
from pipeline.run.stage import StageContext
from pipeline.words import count_of
from stages.search.engine import Search
from stages.search.evaluation import CONSTANTS as OF_EVALUATION
from stages.search.evaluation.evaluator import Evaluator
from stages.search.evaluation.executor import Executor, InProcess, Pool
from stages.search.evaluation.trial import Trial, finalists, ranked
from stages.search.front import CONSTANTS as OF_FRONT
from stages.search.front.choice import Choice, allowed_drop
from stages.search.front.fronts import FrontMaker
from stages.search.front.points import FRONT
from stages.search.front.summary import choose, drop_part, search_front, sentence, share_of
from stages.search.latency import CONSTANTS as OF_LATENCY
from stages.search.latency.calibration import Calibrator, StartTimer
from stages.search.latency.measured_budget import MeasuredBudget
from stages.search.latency.timer import CandidateTimer
from stages.search.moved_limit import as_measured
from stages.search.problem import Network, SearchProblem
from stages.search.results.journal import Journal
from stages.search.results.recorder import FrontRecorder, Recorder, TableRecorder
from stages.search.results.remarks import remarks_on
from stages.search.results.scratch import START_LATENCY, Scratch
from stages.search.results.summary import FINALISTS, Document, Summary, latency_part, table_part
from stages.search.settled import Settled
from stages.search.space.candidate import Candidate
from stages.search.strategies import CONSTANTS as OF_STRATEGIES
from stages.search.strategies import CONTROLS
from stages.search.strategies.base import Strategy
from stages.search.tables import CONSTANTS as OF_TABLES
from stages.search.tables.loss_table import LossTable
from stages.search.tables.resize import resized
from stages.search.tables.solver import solve
from stages.search.tabulate import TABLE, Tabulation


@dataclass(frozen=True)
class SearchResult:
    """What the stage writes: plan.json, search.json, front.json, and numbers for terminal and
    manifest.
    """

    plan: ChannelPlan
    document: Document
    front: Document
    numbers: dict[str, Any]


class SearchSession:
    """Interrupted and begun again, it continues at the trial it was at.

    Args:
        network: what this round cuts.
        original: the network before any cut; the same one in the first round.
        settled: what widths are multiples of, and in which precision candidates are timed.
        journal, scratch: of this search, with what an interrupted one left.
    """

    def __init__(
        self,
        ctx: StageContext,
        network: Network,
        original: Network,
        splits: Splits,
        settled: Settled,
        journal: Journal,
        scratch: Scratch,
    ) -> None:
        self.ctx, self.settings = ctx, ctx.config.search
        self.network, self.original, self.splits = network, original, splits
        self.alignment, self.precision = settled.alignment, settled.precision
        self.journal, self.scratch = journal, scratch

    def run(self) -> SearchResult:
        """Search, choose the plan among the finalists, and say what was found.

        Raises:
            UsageError: the budget cannot be met, or asks for nothing.
            Refused: nothing can be pruned, or no finalist measured within a latency budget.
            Interrupted: Ctrl-C or SIGTERM came; what was found so far is in the journal.
        """
        self._tell_of_journal()
        with ExitStack() as stack:
            calibrator = stack.enter_context(self._calibrator())
            problem = SearchProblem.build(
                self.network,
                self.splits,
                self.settings,
                self.ctx.seed,
                align=self.alignment.align,
                round=self.ctx.round,
                original=self.original,
                calibrate=calibrator,
            )
            phases: dict[str, list[Trial]] = {}
            table, phases[TABLE] = self._table(problem)
            choice: Choice | None = None
            if self.settings.budget.accuracy_drop is not None:
                choice, phases[FRONT] = self._within_drop(problem, table)
                problem = problem.within(share_of(problem, choice))
            problem = as_measured(problem, calibrator.timer, table)
            search = self._search(problem, self._executor(problem.evaluator, stack), table)
            start = solve(table, problem.projector)
            for name in CONTROLS:
                control = problem.strategy(name, trials=1, table=table, start=start)
                phases[name] = search.run(name, control, 1)
            name, trials = self.settings.strategy, self.settings.trials
            strategy = problem.strategy(name, trials=trials, table=table, start=start)
            if name not in CONTROLS:
                phases[name] = search.run(name, strategy, trials)
            phases[FINALISTS] = self._finalists(
                problem, phases[name], search, calibrator.timer, table
            )
        if search.mismatched:
            self.ctx.warn(
                f"{search.mismatched} recorded trials were not those asked for again, "
                "and were repeated"
            )
        return self._result(problem, phases, strategy, table, choice, calibrator.timer)

    def _tell_of_journal(self) -> None:
        """What was found of an interrupted search."""
        if self.journal.foreign:
            self.ctx.note(
                "trials of a search with other settings or another network were set aside"
            )
        if self.journal.torn:
            torn = count_of(self.journal.torn, "incomplete line")
            self.ctx.warn(f"{torn} dropped from the journal of trials")
        if self.journal.trials:
            self.ctx.note(
                f"{count_of(len(self.journal.trials), 'trial')} recovered from the journal"
            )

    def _calibrator(self) -> Calibrator:
        return Calibrator(
            self.network.model,
            self.network.graph,
            self.splits.search,
            self.settings,
            self.ctx.seed,
            known=self.journal.measured,
            on_measure=self.journal.append_measurement,
            progress=self._on_timed,
            start=self._start(),
            scheme=self.precision.scheme,
        )

    def _start(self) -> StartTimer | None:
        """Times what this round starts from; a search that goes on keeps it."""
        if self.ctx.round.first and self.precision.scheme is None:
            return None
        kept = self.scratch.read(START_LATENCY)
        keep = partial(self.scratch.write, START_LATENCY)
        return StartTimer(self.original.model, self.original.graph, kept, keep)

    def _executor(self, evaluator: Evaluator, stack: ExitStack) -> Executor:
        # a GPU is kept busy by one process, and several would share its memory
        if self.settings.workers == 1 or evaluator.x.device.type != "cpu":
            return InProcess(evaluator)
        return stack.enter_context(Pool(evaluator, self.settings.workers))

    def _table(self, problem: SearchProblem) -> tuple[LossTable, list[Trial]]:
        """What each width of each group loses, and the trials that say so."""
        recorder = TableRecorder(problem, self.journal, self.ctx.progress, 0)
        with ExitStack() as stack:
            search = Search(
                self._executor(problem.table_evaluator(), stack),
                recorded=self.journal.trials,
                on_trial=recorder,
                check=self._check,
            )
            tabulation = Tabulation(
                problem.space, self.settings.table.widths, search, recorder.expect
            )
            table = tabulation()
        if search.mismatched:
            self.ctx.warn(f"{search.mismatched} recorded entries of the loss table were repeated")
        return table, tabulation.trials

    def _within_drop(self, problem: SearchProblem, table: LossTable) -> tuple[Choice, list[Trial]]:
        """The smallest budget within `search.budget.accuracy_drop`, and the trials that say so."""
        ctx = self.ctx
        recorder = FrontRecorder(problem, self.journal, ctx.progress, 0)
        maker = FrontMaker.reconstructing(
            problem, table, self.splits, ctx.config.reconstruct, recorded=self.journal.trials,
            on_trial=recorder, expect=recorder.expect, check=self._check,
        )  # fmt: skip
        choice = choose(maker, *allowed_drop(self.settings.budget, ctx.config.distill))
        ctx.note(sentence(problem, choice))
        return choice, maker.trials

    def _search(self, problem: SearchProblem, executor: Executor, table: LossTable) -> Search:
        total = 1 if self.settings.strategy in CONTROLS else self.settings.trials
        return Search(
            executor,
            table,
            self.settings.evaluation,
            self.settings.halving,
            recorded=self.journal.trials,
            on_trial=Recorder(problem, self.journal, self.ctx.progress, total),
            check=self._check,
            on_batch=self._on_batch,
        )

    def _finalists(
        self,
        problem: SearchProblem,
        trials: list[Trial],
        search: Search,
        timer: CandidateTimer | None,
        table: LossTable,
    ) -> list[Trial]:
        """The leaders on more images, so that the plan is not the luckiest of many on few.

        They are timed, if latency counts.
        """
        evaluator = problem.final_evaluator()
        leaders = [trial.candidate for trial in finalists(trials, self.settings.finalists)]
        if timer is not None and self.settings.latency != "predicted":
            leaders = self._within_latency(problem, trials, timer, table)
        elif evaluator is None or len(leaders) < 2:
            return []
        # another memory: what trials scored on few images says nothing here
        executor = InProcess(evaluator or problem.evaluator)
        final = replace(search, executor=executor, memory={}, mismatched=0)
        return final.score(FINALISTS, leaders)

    def _within_latency(
        self, problem: SearchProblem, trials: list[Trial], timer: CandidateTimer, table: LossTable
    ) -> list[Candidate]:
        """Finalists whose measured latency keeps the budget."""
        resize = partial(resized, table)
        budget = MeasuredBudget(timer, problem.projector, problem.budget.share, resize)
        if self.settings.latency == "measured":
            timely = [trial for trial in ranked(trials) if budget.keeps(trial.candidate)]
            trials = timely or trials
        leaders = [trial.candidate for trial in finalists(trials, self.settings.finalists)]
        found = budget.fitted(leaders)
        if not found:
            name, _ = self.settings.budget.given
            none = f"none of the {len(leaders)} best candidates was"
            raise Refused(
                f"{none if len(leaders) > 1 else 'the best candidate was not'} measured within "
                f"the latency budget {problem.budget.share:g}",
                hint=Hint(
                    "a larger ",
                    Key(f"search.budget.{name}"),
                    ", more ",
                    Key("search.finalists"),
                    ", or a quieter machine",
                ),
            )
        return found

    def _on_batch(self, strategy: Strategy, trials: Sequence[Trial]) -> None:
        if state := strategy.state():
            self.scratch.write_policy(state, len(trials))

    def _on_timed(self, done: int, total: int) -> None:
        self._check()
        self.ctx.progress(done, total, what="candidates timed for the latency table")

    def _check(self) -> None:
        if self.ctx.stopping():
            raise self.ctx.interrupted()

    def _result(
        self,
        problem: SearchProblem,
        phases: dict[str, list[Trial]],
        strategy: Strategy,
        table: LossTable,
        choice: Choice | None,
        timer: CandidateTimer | None,
    ) -> SearchResult:
        best = (ranked(phases[FINALISTS]) or ranked(phases[self.settings.strategy]))[0]
        findings = strategy.findings()
        for finding in findings:
            self.ctx.warn(finding)
        constants = {
            **OF_EVALUATION,
            **OF_TABLES,
            **(OF_FRONT if choice else {}),
            **OF_STRATEGIES.get(self.settings.strategy, {}),
            **(OF_LATENCY if problem.calibration else {}),
        }
        summary = Summary(problem, phases, best, findings, constants)
        document = summary.document()
        document["table"] = table_part(problem, table, best)
        if choice is not None:
            document["budget"]["accuracy_drop"] = drop_part(choice)
        if problem.calibration is not None and timer is not None:
            document["latency"] = latency_part(problem, problem.calibration, timer, best)
        again = Command.run_again(self.ctx.config_name, self.ctx.run)
        align, samples = problem.align, self.settings.latency_samples
        for remark in remarks_on(document, align, samples, again):
            self.ctx.warn(remark)
        for name in ("alignment", "precision"):
            if (derived := getattr(self, name).document) is not None:
                document[name] = derived
        document["policy"] = {
            name: [round(float(value), 6) for value in values]
            for name, values in strategy.state().items()
        }
        front = search_front(problem, table, phases, choice)
        numbers = _numbers(problem, document, best)
        if choice is not None:
            numbers["allowed_drop"] = choice.allowed
        return SearchResult(summary.plan(), document, front, numbers)


def _numbers(problem: SearchProblem, document: Document, best: Trial) -> dict[str, Any]:
    realised = document["budget"]["realised"]
    scores = {row["strategy"]: row["score"] for row in document["strategies"]}
    measured = document["latency"]["measured"] if "latency" in document else None
    return {
        "strategy": document["strategy"],
        "align": problem.align,
        **({"precision": document["latency"]["precision"]} if "latency" in document else {}),
        "trials": document["trials"],
        "score": best.outcome.score,
        "search_accuracy": best.outcome.accuracy,
        "macs_fraction": realised["macs"]["fraction"],
        "params_fraction": realised["params"]["fraction"],
        **({"latency_fraction": measured} if "latency" in document else {}),
        **{f"score_{name}": scores[name] for name in CONTROLS if name in scores},
    }
