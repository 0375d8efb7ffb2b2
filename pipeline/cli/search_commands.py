"""`rlp search compare`: strategies at equal evaluations, then equal distillation, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import SetOption, command

app = typer.Typer(help="Compare search strategies at equal budgets.", no_args_is_help=True, rich_markup_mode=None)

_KEYS = ("run", "strategies", "seeds", "table", "differences", "rank_correlation_score_recovered", "runs")


@app.callback()
def _root() -> None:
    """Compare search strategies at equal budgets."""


@command(app, "compare", keys=_KEYS)
def compare(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML config.")],
    strategies: Annotated[
        str, typer.Option("--strategies", metavar="A,B", help="The first is compared with each other one.")
    ] = "rl,rlpruner,evolution,random,global-taylor,uniform",
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Repetitions, with seeds 0, 1, …")] = 3,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Evaluations each; default search.trials.")
    ] = None,
    distill: Annotated[bool, typer.Option("--distill/--no-distill", help="Also recover each one's best.")] = True,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="Run to work in.")] = None,
    sets: SetOption = None,
) -> dict[str, Any]:
    """Equal evaluations for every strategy and seed; spread, paired intervals, and "not shown" when it is not.

    Accuracies are on the search split. Typing the same command again continues where it stopped.
    """
    from pipeline import store
    from pipeline.cli import running
    from pipeline.config_load import find_config, load_config
    from stages.search.compare import Run
    from stages.search.compare import compare as compare_strategies

    file = find_config(config)
    settings, folder = load_config(file, sets or ()), run_dir or running.default_run_dir(file)
    names = list(dict.fromkeys(name.strip() for name in strategies.split(",") if name.strip()))
    running.execute(settings, str(file), folder, last="trace", resume_command=f"rlp search compare {config}")
    with store.lock(folder), running.user_modules(settings, str(file)), _prepared(settings, folder) as (setup, recover):
        for name in names:
            setup.strategy(name, trials=1)  # an unknown name is refused before any work
        journal = _Journal(folder, settings, trials, distill)
        found = compare_strategies(
            setup,
            names,
            range(seeds),
            trials=trials,
            recover=recover if distill else None,
            progress=lambda done, total, run: journal.add(done, total, run),
            known={(row["strategy"], row["seed"]): Run(**row) for row in journal.rows},
        )
    doc = {"run": str(folder), "strategies": names, "seeds": seeds, **found.to_dict()}
    for row in doc["differences"]:
        row |= {edge: row[edge] if math.isfinite(row[edge]) else None for edge in ("low", "high")}
    _show(doc, setup.settings.score)
    return doc


class _Journal:
    """Finished runs of the same comparison, kept in `.work/compare.json`."""

    def __init__(self, folder: Path, settings: Any, trials: int | None, distill: bool) -> None:
        from pipeline import store

        self.path = folder / ".work" / "compare.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        of = settings.model_dump(mode="json", include={"seed", "model", "data", "search", "distill", "trace"})
        self.of = {"settings": of, "trials": trials, "distill": distill}
        old = store.read_json(self.path) if self.path.exists() else {}
        self.rows: list[dict[str, Any]] = old["runs"] if old.get("of") == self.of else []
        self.known = {(row["strategy"], row["seed"]) for row in self.rows}

    def add(self, done: int, total: int, run: Any) -> None:
        from pipeline import store

        after = "" if run.recovered is None else f", recovered {run.recovered:.2%}"
        console.note(f"{done}/{total} {run.strategy} seed {run.seed}: score {run.score:.4f}{after}")
        if (run.strategy, run.seed) not in self.known:
            self.rows.append(asdict(run))
            store.write_json(self.path, {"of": self.of, "runs": self.rows})


class _prepared:
    """Base network, graph and images of a run as a search set-up, timed first where latency is the budget."""

    def __init__(self, settings: Any, folder: Path) -> None:
        self.settings, self.folder = settings, folder

    def __enter__(self) -> tuple[Any, Callable[..., float]]:
        from contextlib import ExitStack

        from pipeline.data import load_splits
        from pipeline.models import load_model
        from pipeline.training.machine import all_cores
        from stages.search.calibrate import calibrate
        from stages.search.setup import prepare
        from stages.search.stopwatch import Stopwatch
        from stages.trace import ChannelGraph

        search = self.settings.search
        self.stack = ExitStack()
        self.stack.enter_context(all_cores())
        model = load_model(self.folder / "pretrain")
        graph = ChannelGraph.from_json((self.folder / "trace" / "graph.json").read_text())
        splits = load_splits(self.settings.data, seed=self.settings.seed)
        setup = prepare(model, graph, splits, search, self.settings.seed)
        if search.budget.latency or search.budget.latency_ms:
            evaluator, where = setup.evaluator, (search.latency_provider, search.latency_batch, search.latency_threads)
            watch = Stopwatch(evaluator.model, graph, evaluator.ranking, evaluator.x[:2], *where)
            setup = calibrate(setup, self.stack.enter_context(watch), lambda done, total: None).setup
        return setup, self._recovery(model, graph, splits, setup)

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _recovery(self, model: Any, graph: Any, splits: Any, setup: Any) -> Callable[..., float]:
        from pipeline.training import Recipe, fit
        from stages.distill.engine import recover
        from stages.prune import ChannelPlan, prune

        section = self.settings.distill
        recipe = Recipe.from_config(section, epochs=section.epochs, lr=section.lr)

        def recovered(counts: Any, seed: int) -> float:
            student = prune(model, graph, ChannelPlan(setup.evaluator.ranking.keep(counts), {}))

            def train(net: Any, objective: Any) -> Any:
                return fit(net, splits.train, splits.search, recipe, seed=seed, objective=objective)

            return recover(student, model, splits, section, seed=seed, train=train).final

        return recovered


def _show(doc: dict[str, Any], score: str) -> None:
    def spread(row: dict[str, Any], key: str, style: str) -> str:
        if key not in row:
            return ""
        sd = row[f"{key}_sd"]
        return format(row[key], style) + ("" if sd is None else f" ± {format(sd, style)}")

    rows = [
        (
            row["strategy"],
            row["seeds"],
            row["evaluations"],
            spread(row, "score", ".4f"),
            spread(row, "accuracy", ".2%"),
            spread(row, "recovered", ".2%"),
        )
        for row in doc["table"]
    ]
    console.table(("strategy", "seeds", "evaluations", f"score ({score})", "before recovery", "after recovery"), rows)
    for row in doc["differences"]:
        low, high = (("–" if row[edge] is None else f"{row[edge]:+.4f}") for edge in ("low", "high"))
        interval = f"{row['mean']:+.4f}, 95 % interval {low} to {high}"
        console.say(f"{doc['strategies'][0]} − {row['strategy']}, {row['measure']}: {interval}: {row['verdict']}")
    correlation = doc["rank_correlation_score_recovered"]
    if correlation is not None:
        console.say(f"rank correlation of search score and recovered accuracy: {correlation:.2f}")
