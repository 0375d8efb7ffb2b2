"""What `rlp search compare` works with: a run's network and images as a set-up, a journal, and
the table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import console
from pipeline.run import store

if TYPE_CHECKING:
    from stages.search.compare import Run
    from stages.search.setup import Setup


class Journal:
    """Finished runs and timings of one comparison, in `.work/compare-<what it is of>.json`.

    More seeds or strategies continue it; other settings begin another one, beside it.

    Args:
        of: whatever the runs depend on.
    """

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        from stages.search.compare import Run
        from stages.search.stopwatch import Measurement

        digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
        self.path = folder / ".work" / f"compare-{digest[:12]}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.of = of
        old = store.read_json(self.path) if self.path.exists() else {}
        rows = [Run(**{**row, "counts": tuple(row["counts"])}) for row in old.get("runs", ())]
        self.runs = {(run.strategy, run.seed): run for run in rows}
        self.timed = {
            tuple(row["kept"]): Measurement(*row["timing"]) for row in old.get("timed", ())
        }

    def on_run(self, done: int, total: int, run: Run) -> None:
        """Keep a run and say what it found."""
        cost = (
            f"cost {run.cost:.4g}"
            if run.measured is None
            else f"latency {run.measured:.3f} of the base"
        )
        told = f"{run.strategy} seed {run.seed}: score {run.score:.4f}, {cost}, {run.seconds:.1f} s"
        if run.recovered is not None:
            told += f"; recovered {run.recovered:.2%} in {run.recovery_seconds or 0:.1f} s"
        console.note(f"{done}/{total} {told}")
        if self.runs.get((run.strategy, run.seed)) != run:
            self.runs[run.strategy, run.seed] = run
            self.save()

    def on_measure(self, key: tuple[int, ...], measurement: Any) -> None:
        """Keep a timing: the latency table must be the same when the comparison is continued."""
        self.timed[key] = measurement
        self.save()

    def save(self) -> None:
        timed = [
            {"kept": list(key), "timing": list(asdict(one).values())}
            for key, one in self.timed.items()
        ]
        store.write_json(
            self.path,
            {"of": self.of, "runs": [asdict(r) for r in self.runs.values()], "timed": timed},
        )


@dataclass(frozen=True)
class Prepared:
    """A set-up whose budget is known, the recovery, and for measured budgets what fits a
    candidate into them.
    """

    setup: Setup
    recover: Callable[[Any, int], float]
    fit: Callable[[Any], tuple[Any, float | None]] | None
    distill_images: int


def prepared(
    settings: Any, folder: Path, journal: Journal, distill_images: int | None, stack: ExitStack
) -> Prepared:
    """Base network, graph and images of a run; candidates are timed first where latency is the
    budget.
    """
    from pipeline.data import load_splits
    from pipeline.data.images import balanced_indices
    from pipeline.models import load_model
    from pipeline.training.machine import all_cores
    from stages.search.align import settle_alignment
    from stages.search.calibrate import calibrate, within
    from stages.search.setup import prepare
    from stages.search.stopwatch import Stopwatch
    from stages.trace import ChannelGraph

    stack.enter_context(all_cores())
    model = load_model(folder / "pretrain")
    graph = ChannelGraph.from_json((folder / "trace" / "graph.json").read_text())
    splits = load_splits(settings.data, seed=settings.seed)
    search, _ = settle_alignment(settings.search, graph, note=console.note)
    setup = prepare(model, graph, splits, search, settings.seed)
    fit: Callable[[Any], tuple[Any, float | None]] | None = None
    if search.budget.latency or search.budget.latency_ms:
        evaluator, where = (
            setup.evaluator,
            (search.latency_provider, search.latency_batch, search.latency_threads),
        )
        watch = stack.enter_context(
            Stopwatch(
                evaluator.model, graph, evaluator.ranking, evaluator.x[:2], *where,
                known=dict(journal.timed), on_measure=journal.on_measure,
            )
        )  # fmt: skip
        calibration = calibrate(setup, watch, lambda done, total: None)
        setup = calibration.setup

        def fitted(counts: Any) -> tuple[Any, float | None]:
            found = within(calibration, watch, counts)
            found = counts if found is None else found
            return found, watch.measure(found).fraction

        fit = None if search.latency == "predicted" else fitted
    if distill_images and distill_images < len(splits.train):
        some = splits.train.subset(
            balanced_indices(splits.train.labels, distill_images, settings.seed)
        )
        splits = replace(splits, train=some)
    return Prepared(setup, recovery(settings, model, graph, splits, setup), fit, len(splits.train))


def recovery(
    settings: Any, model: Any, graph: Any, splits: Any, setup: Any
) -> Callable[[Any, int], float]:
    """`(counts, seed) -> accuracy on the search split` after the run's own distillation."""
    from pipeline.training import Recipe, fit
    from stages.distill.engine import recover
    from stages.prune import ChannelPlan, prune

    section = settings.distill
    recipe = Recipe.from_config(section, epochs=section.epochs, lr=section.lr)

    def recovered(counts: Any, seed: int) -> float:
        student = prune(model, graph, ChannelPlan(setup.evaluator.ranking.keep(counts), {}))

        def train(net: Any, objective: Any, images: Any) -> Any:
            return fit(net, images, splits.search, recipe, seed=seed, objective=objective)

        return recover(student, model, splits, section, seed=seed, train=train).final

    return recovered


def show(doc: dict[str, Any], score: str) -> None:
    """The table, the paired differences and the rank correlation, for people."""
    timed = any(row["measured"] is not None for row in doc["table"])
    rows = [
        (
            row["strategy"],
            row["seeds"],
            row["evaluations"],
            _spread(row, "score", ".4f"),
            _spread(row, "accuracy", ".2%"),
            _spread(row, "recovered", ".2%"),
            format(row["measured"], ".3f")
            if timed and row["measured"] is not None
            else format(row["cost"], ".4g"),
            f"{row['seconds']:.1f} s",
        )
        for row in doc["table"]
    ]
    head = (
        "strategy",
        "seeds",
        "evaluations",
        f"score ({score})",
        "accuracy as scored",
        "after recovery",
    )
    console.table((*head, "latency, of the base" if timed else "cost", "search"), rows)
    if doc["distill"]:
        told = doc["distill"]
        console.say(
            f"recovery: {told['epochs']} epochs on {told['images']:,} train images, seeds {_list(told['seeds'])}; "
            "± is the standard deviation over seeds; accuracies are on the search split"
        )
    for row in doc["differences"]:
        low, high = (
            ("–" if row[edge] is None else f"{row[edge]:+.4f}") for edge in ("low", "high")
        )
        interval = f"{row['mean']:+.4f}, 95 % interval {low} to {high} ({row['seeds']} seeds)"
        console.say(
            f"{doc['strategies'][0]} − {row['strategy']}, {row['measure']}: {interval}: {row['verdict']}"
        )
    value = doc["rank_correlation_score_recovered"]
    if value is not None:
        p, count = doc["rank_correlation_p"], doc["rank_correlation_candidates"]
        verdict = "" if p < 0.05 else ": not shown"
        console.say(
            f"rank correlation of search score and recovered accuracy: {value:.2f} over {count} candidates "
            f"(p = {p:.3f}){verdict}"
        )


def _spread(row: dict[str, Any], key: str, style: str) -> str:
    if key not in row:
        return ""
    sd, count = row[f"{key}_sd"], row[f"{key}_seeds"]
    told = format(row[key], style) + ("" if sd is None else f" ± {format(sd, style)}")
    return told if count == row["seeds"] else f"{told} ({count})"


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(str(seed) for seed in seeds)
